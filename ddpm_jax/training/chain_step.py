"""One optimizer step on the bound of the 2015 paper, for Gaussian states and bits."""

import jax

from ddpm_jax.core import flags, keys
from ddpm_jax.diffusion import nonequilibrium, timesteps
from ddpm_jax.training import state as state_lib
from ddpm_jax.training import update


@flags.as_written()
def train_step(
    state: state_lib.TrainState,
    batch: dict[str, jax.Array],
    *,
    seed: int,
    apply,
    chain,
    tables_of,
    states,
    unit: float,
    **tail,
):
    """Return the next state and the metrics of a step on −K − H(X_1|X_0).

    That is Σ_{t≥2} KL(q(x_{t−1}|x_t,x_0) ‖ p(x_{t−1}|x_t)) + KL(q(x_T|x_0) ‖ π), a sum
    of divergences: it is never negative, and differs from −K by a constant, for β_1 is
    one. The sum over t is T−1 times one of its terms, with t uniform.

    Args:
        state: the state before the step.
        batch: "image" [B, ...], data in [−1, 1] or continuous.
        seed: the run's seed.
        apply: `(params, x, t, {}) → output`.
        chain: a value of `diffusion.binomial` or `diffusion.learned_rates`.
        tables_of: params → tables of the chain; the learned rates are among params.
        states: `diffusion.states.States`.
        unit: nats that are one unit of the loss.
        **tail: optimizer, learning_rate and the options of `update.update_state`.

    Returns:
        The state and the metrics of `update.update_state`, with "bound", the mean of K.
    """
    draw = update.drawer(seed, state)
    data = batch["image"]
    num_steps = tables_of(state.params).num_steps
    sampler = timesteps.uniform(num_steps - 1)  # the first step has nothing to learn
    t, weight = sampler.sample((), draw("t"), data.shape[0])
    examples = {
        "x_0": states.encode(data, keys.uniform(draw("level"), data.shape)),
        "t": t + 1,
        "weight": weight,
        "noise": chain.noise(draw("noise"), data.shape),
    }

    def loss_terms(params, part):
        tables = tables_of(params)
        x_t = chain.q_sample(tables, part["x_0"], part["t"], part["noise"])
        output = apply(params, x_t, part["t"], {})
        return nonequilibrium.terms(
            chain, tables, output, part["x_0"], x_t, part["t"], unit=unit
        )

    return update.update_state(
        state,
        examples,
        loss_terms,
        num_steps=num_steps,
        timestep_sampler=sampler,
        **tail,
    )
