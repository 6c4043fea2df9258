"""The bound K of held-out data, term by term, and its validation while training.

Reference: Sohl-Dickstein et al. 2015, section 2.3 and App. B.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import nonequilibrium
from ddpm_jax.metrics import validation
from ddpm_jax.runtime import sharding


class Setup(NamedTuple):
    """What scores a chain: see `training.chain_step`.

    Attributes:
        apply: `(params, x, t, {}) → output`.
        chain, tables_of, states, unit: of the train step.
        seed: of the noise.
    """

    apply: object
    chain: object
    tables_of: object
    states: object
    unit: float
    seed: int


def make_validator(
    setup: Setup, *, num_steps: int, images, mesh, batch_size: int, per_image: int = 16
):
    """Return `params → dict`, loss and bound at fixed data, t and noise.

    Args:
        setup: of the chain.
        num_steps: T.
        images: float32 [n, ...], the same data every time.
        mesh: devices to share each batch.
        batch_size: pairs at a time; changes no value.
        per_image: timesteps of each example.

    Raises:
        Refusal: no data, or a batch that the devices cannot share.
    """
    if not len(images):
        raise errors.Refusal(
            "no test data to validate on: raise data.test_fraction, or set "
            "train.validate_every=0"
        )
    sharding.check_batch(mesh, batch_size, "the validation batch")
    fixed = validation.pairs(len(images), per_image, num_steps - 1)
    scorer = _pair_scorer(setup, mesh)

    def validate(params) -> dict:
        parts = [
            np.stack(scorer(params, batch))[:, :kept]
            for batch, kept in validation.batches(fixed, images, {}, mesh, batch_size)
        ]
        loss, bound = np.concatenate(parts, axis=1).astype(np.float64)
        found = validation.means("validation_loss", loss, fixed.t + 1, num_steps)
        return {**found, "validation_bound": float(bound.mean())}

    return validate


def _pair_scorer(setup, mesh):
    chain = setup.chain

    def score(params, batch):
        tables, t = setup.tables_of(params), batch["t"] + 1
        x_0 = _encoded(setup, batch["image"], batch["index"])
        stream = keys.key_for(setup.seed, "validate/noise", index=batch["index"])
        stream = keys.fold_in_each(stream, batch["part"])
        noise = chain.noise_each(stream, x_0.shape[1:])
        x_t = chain.q_sample(tables, x_0, t, noise)
        output = setup.apply(params, x_t, t, {})
        found = nonequilibrium.terms(
            chain, tables, output, x_0, x_t, t, unit=setup.unit
        )
        return found["loss"], found["bound"]

    return jax.jit(score, out_shardings=sharding.replicated(mesh))


class Terms(NamedTuple):
    """The bound of each example, in the unit.

    Attributes:
        kl: [T, n], of the step from x_t; entry 0, which is not learned, is 0.
        ends: [n], the rest of K.
        null: [n], L_null, the log-probability under the prior.
        lower, upper: [T, n], bounds of H(X_{t−1}|X_t), 0 at entry 0.
    """

    kl: np.ndarray
    ends: np.ndarray
    null: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def bound(self) -> np.ndarray:
        """K of each example, [n]."""
        return self.ends - self.kl.sum(axis=0)


def make_scorer(setup: Setup, mesh):
    """Return the compiled `(params, batch) → Terms`; batch: "image" and "index" [B]."""
    chain = setup.chain

    def score(params, batch):
        tables = setup.tables_of(params)
        x_0 = _encoded(setup, batch["image"], batch["index"])
        stream = keys.key_for(setup.seed, "bound/noise", index=batch["index"])

        def at(step):
            t = jnp.full(x_0.shape[0], step)
            noise = chain.noise_each(keys.fold_in_each(stream, step), x_0.shape[1:])
            x_t = chain.q_sample(tables, x_0, t, noise)
            output = setup.apply(params, x_t, t, {})
            kl = nonequilibrium.step_kl(chain, tables, output, x_0, x_t, t)
            return kl, *nonequilibrium.entropy_bounds(chain, tables, x_0, t)

        steps = jnp.arange(1, tables.num_steps, dtype=jnp.int32)
        by_t = [_after_zero(values) for values in jax.lax.map(at, steps)]
        ends = nonequilibrium.ends(chain, tables, x_0)
        null = chain.log_prob(chain.prior(tables, x_0), x_0)
        kl, lower, upper = by_t
        found = Terms(kl, ends, null, lower, upper)
        return jax.tree.map(lambda values: values / setup.unit, found)

    return jax.jit(score, out_shardings=sharding.replicated(mesh))


def make_estimator(setup: Setup, mesh, trajectories: int):
    """Return the compiled `(params, batch) → nonequilibrium.Trajectories`, in the unit.

    Args:
        trajectories: over which the probability of an example is averaged.
    """
    chain = setup.chain

    def estimate(params, batch):
        tables = setup.tables_of(params)
        x_0 = _encoded(setup, batch["image"], batch["index"])
        stream = keys.key_for(setup.seed, "bound/trajectory", index=batch["index"])

        def one(number):
            own = keys.fold_in_each(stream, number)
            return nonequilibrium.log_weights(
                chain,
                tables,
                lambda x, t: setup.apply(params, x, t, {}),
                x_0,
                lambda t: chain.noise_each(keys.fold_in_each(own, t), x_0.shape[1:]),
            )

        found = jax.lax.map(one, jnp.arange(trajectories, dtype=jnp.int32))
        found = nonequilibrium.averaged(found)
        return found._replace(log_probability=found.log_probability / setup.unit)

    return jax.jit(estimate, out_shardings=sharding.replicated(mesh))


def _encoded(setup, images, index):
    """Return states of images, with the same noise of levels every time."""
    stream = keys.key_for(setup.seed, "validate/level", index=index)
    uniform = jax.vmap(lambda key: keys.uniform(key, images.shape[1:]))(stream)
    return setup.states.encode(images, uniform)


def _after_zero(values):
    return jnp.concatenate([jnp.zeros_like(values[:1]), values])
