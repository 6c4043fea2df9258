"""Chains of the 2015 paper on three pairs of numbers, of both kinds, for the tests."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import binomial, learned_rates, process, schedules
from ddpm_jax.diffusion.states import States
from ddpm_jax.models import multiscale, stepwise

SHAPE, NUM_STEPS = (3, 2), 6
KINDS = ("gaussian", "binomial")


def chain_of(kind):
    """The chain, `params → tables`, and the way between data and states."""
    if kind == "binomial":
        chain = binomial.Binomial(0.3, "x_0")
        betas = schedules.make_betas("jsd", NUM_STEPS)
        tables = chain.tables(process.Schedule.from_betas(betas))
        return chain, lambda params: tables, States(binary=True)
    start = learned_rates.usual_betas(NUM_STEPS, 1e-3)
    chain = learned_rates.LearnedRates(tuple(start), "residual")
    return chain, lambda p: chain.tables(p[stepwise.RATES]["offset"]), States(0.1, 0.6)


def network_of(chain):
    """A network of one hidden layer, with the offsets of the rates."""
    outputs = chain.channels * int(np.prod(SHAPE))
    made = stepwise.mlp(size=6, width=8, layers=1, outputs=outputs, num_steps=NUM_STEPS)
    made = multiscale.shaped(made, (*SHAPE[:-1], -1))
    return stepwise.with_rates(made, NUM_STEPS)


def params_of(network, seed=0):
    """Parameters of which none is 0, small enough for a chain to stay finite."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.5, leaf.shape), jnp.float32),
        network.shapes,
    )


def data_of(kind, count, seed=1):
    """Examples in [−1, 1], those of bits −1 or 1."""
    data = np.random.default_rng(seed).uniform(-1, 1, (count, *SHAPE))
    return (np.sign(data) if kind == "binomial" else data).astype(np.float32)
