"""How noisy minibatch gradients are: by objective, and by how timesteps are drawn.

The gradient of a minibatch of B examples has covariance Σ/B. The trace of Σ, the noise
of one example, is estimated from K minibatches; divided by the squared length of the
mean gradient it is the gradient-noise scale (McCandlish et al. 2018, eq. 2.9), the
batch at which noise and gradient are of one size. Importance sampling leaves the mean
gradient as it is, so that the traces themselves compare.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.claims import arms
from ddpm_jax.builders import process as build_process
from ddpm_jax.core import conditions
from ddpm_jax.diffusion import losses, process

BOUND, HYBRID = "rescaled_kl", "rescaled_hybrid"
PER_T = 16  # examples of each t whose squared losses make the weights of importance


def noise(trained, *, seed: int, batches: int, batch_size: int) -> dict:
    """Return traces and noise scales of three ways to draw a minibatch.

    Args:
        trained: the run whose weights, those that are trained, are looked at.
        seed: of the examples, timesteps and noise.
        batches: K.
        batch_size: B.

    Returns:
        "<way> trace" and "<way> scale" for the ways "bound" (uniform timesteps),
        "importance" (the bound, p_t ∝ √E[L_t²], Improved DDPM eq. 18) and "hybrid".
    """
    draw = _Draws(trained, seed, batch_size)
    gradient, terms = _programs(trained)
    params = trained.state.params
    uniform = np.full(draw.num_steps, 1 / draw.num_steps)
    importance = _importance(draw, functools.partial(terms, params))
    ways = {
        "bound": (BOUND, uniform),
        "importance": (BOUND, importance),
        "hybrid": (HYBRID, uniform),
    }
    found = {}
    for way, (loss, chance) in ways.items():
        rows = [
            np.asarray(gradient[loss](params, *draw.batch(chance)), np.float64)
            for _ in range(batches)
        ]
        trace, scale = noise_scale(np.stack(rows), batch_size)
        found |= {f"{way} trace": trace, f"{way} scale": scale}
    return found


def noise_scale(rows: np.ndarray, batch_size: int) -> tuple[float, float]:
    """Return tr Σ of one example and the gradient-noise scale tr Σ / |G|².

    |G|² is the squared mean of all K·B examples, its own noise included: the scale is
    too small where it is large, and never much above K·B. Differences between ways are
    therefore understated, not overstated.

    Args:
        rows: [K, D] minibatch gradients.
        batch_size: B.
    """
    mean = rows.mean(axis=0)
    trace = batch_size * np.sum((rows - mean) ** 2) / (len(rows) - 1)
    return float(trace), float(trace / np.sum(mean**2))


class _Draws:
    """Minibatches of the training split; NumPy draws the same ones everywhere."""

    def __init__(self, trained, seed, batch_size):
        self._random = np.random.default_rng((seed, 20))
        self._batch_size = batch_size
        self._dataset = arms.dataset(trained.config, "train")
        self._specs = trained.network.condition_spec
        self.num_steps = trained.config.diffusion.num_steps

    def examples(self, t):
        """Return images, conditions, t and noise for given timesteps."""
        index = self._random.integers(len(self._dataset), size=len(t))
        batch = self._dataset.fetch(np.sort(index))
        condition = conditions.selected(self._specs, batch, self._dataset.name)
        shape = batch["image"].shape
        noise = self._random.standard_normal(shape).astype(np.float32)
        return batch["image"], condition, np.asarray(t, np.int32), noise

    def batch(self, chance):
        """Return a minibatch whose timesteps have a chance, and their weights."""
        t = self._random.choice(len(chance), size=self._batch_size, p=chance)
        weight = 1 / (len(chance) * chance[t])
        return *self.examples(t), weight.astype(np.float32)


def _importance(draw, terms):
    squares = []
    for _ in range(PER_T):
        loss = terms(*draw.examples(np.arange(draw.num_steps)))
        squares.append(np.asarray(loss, np.float64) ** 2)
    root = np.sqrt(np.mean(squares, axis=0))
    return root / root.sum()


def _programs(trained):
    """Return the compiled gradients by loss, and the terms of the bound."""
    config, facts = trained.config, trained.facts
    tables = process.tables(build_process.schedule(config))
    objective = build_process.objective(config, facts)

    def values(params, image, condition, t, noise, *, loss):
        def network(x_t, t_seen):
            return trained.network.apply(params, x_t, t_seen, condition)

        found = losses.training_losses(
            tables, network, image, t, noise, **(objective | {"loss": loss})
        )
        return found["loss"]

    def gradient(params, image, condition, t, noise, weight, *, loss):
        def mean(params):
            of_each = values(params, image, condition, t, noise, loss=loss)
            return jnp.mean(of_each * weight)

        leaves = jax.tree.leaves(jax.grad(mean)(params))
        return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])

    compiled = {
        loss: jax.jit(functools.partial(gradient, loss=loss))
        for loss in (BOUND, HYBRID)
    }
    return compiled, jax.jit(functools.partial(values, loss=BOUND))
