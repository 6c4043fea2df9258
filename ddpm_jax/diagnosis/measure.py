"""What the checks look at: passes over data, network and sampler with fixed noise."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, keys
from ddpm_jax.diffusion import process, respacing, reverse, samplers
from ddpm_jax.metrics import oracle
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler

SEED = 0  # of every draw but the samples': a diagnosis repeats itself
FETCHED = 64  # images in memory at a time
POOLED_SIDE = 32  # pixels, at most, of the images whose distances are measured
NEIGHBOURS = 10  # behind the nearest one, which its distance is divided by
CHAIN_SAMPLES = 8192


# ---- data ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DataStatistics:
    """What the network sees of a split, from evenly spaced images.

    Attributes:
        index: int64 [n], the inspected images.
        minimum, maximum: over all values.
        finite: whether all of them are.
        off_grid: share of the values that are none of the data's grey values.
        mean, var: float64 [H, W, C], over images.
        channel_mean, channel_std: float64 [C].
        pooled: float32 [n, D], images of at most 32 pixels a side.
    """

    index: np.ndarray
    minimum: float
    maximum: float
    finite: bool
    off_grid: float
    mean: np.ndarray
    var: np.ndarray
    channel_mean: np.ndarray
    channel_std: np.ndarray
    pooled: np.ndarray


def statistics(fetch, count: int, limit: int, levels: int) -> DataStatistics:
    """Look at up to `limit` of `count` images, a few in memory at a time.

    Args:
        fetch: indices → {"image": float32 [n, H, W, C]}.
        levels: grey values of the data, evenly spaced from −1 to 1.
    """
    index = arrays.spread(count, limit)
    total = squares = 0.0
    lows, highs, off_grid, finite, pooled = [], [], [], [], []
    for start in range(0, len(index), FETCHED):
        image = fetch(index[start : start + FETCHED])["image"].astype(np.float64)
        total = total + image.sum(axis=0)
        squares = squares + np.square(image).sum(axis=0)
        lows.append(image.min())
        highs.append(image.max())
        grid = (image + 1) / 2 * (levels - 1)
        off_grid.append(np.mean(np.abs(grid - np.round(grid)) > 0.05))
        finite.append(np.isfinite(image).all())
        pooled.append(pool(image))
    mean = total / len(index)
    second = squares / len(index)
    channel_mean = mean.mean(axis=(0, 1))
    channel_var = second.mean(axis=(0, 1)) - channel_mean**2
    return DataStatistics(
        index=index,
        minimum=float(np.min(lows)),
        maximum=float(np.max(highs)),
        finite=all(finite),
        off_grid=float(np.mean(off_grid)),
        mean=mean,
        var=np.maximum(second - mean**2, 0),
        channel_mean=channel_mean,
        channel_std=np.sqrt(np.maximum(channel_var, 0)),
        pooled=np.concatenate(pooled),
    )


def pool(image: np.ndarray) -> np.ndarray:
    """Return means over blocks, such that no side has more than 32: float32 [n, D]."""
    count, height, width, channels = image.shape
    factor = -(-max(height, width) // POOLED_SIDE)
    rows, columns = max(1, height // factor), max(1, width // factor)
    tall, wide = height // rows, width // columns
    cut = image[:, : rows * tall, : columns * wide]
    blocks = cut.reshape(count, rows, tall, columns, wide, channels)
    return blocks.mean(axis=(2, 4)).reshape(count, -1).astype(np.float32)


class Nearest(NamedTuple):
    """The nearest of some images to each of others.

    Attributes:
        relative: [n], the distance over the mean distance of the next neighbours.
        index: int [n].
    """

    relative: np.ndarray
    index: np.ndarray


def nearest(queries: np.ndarray, among: np.ndarray) -> Nearest:
    """Return the nearest rows of `among` [m, D] to those of `queries` [n, D], m ≥ 2.

    The distance is divided by that of the next neighbours, as Carlini et al. 2023 do:
    plain pictures are close to many others, a copy to one alone.
    """
    centre = among.mean(axis=0)
    queries, among = queries - centre, among - centre
    squared = np.square(among).sum(axis=1) - 2 * queries @ among.T
    squared += np.square(queries).sum(axis=1, keepdims=True)
    distance = np.sqrt(np.maximum(squared, 0))
    order = np.argsort(distance, axis=1, kind="stable")[:, : NEIGHBOURS + 1]
    close = np.take_along_axis(distance, order, axis=1)
    next_ones = np.maximum(close[:, 1:].mean(axis=1), np.finfo(np.float32).tiny)
    return Nearest(close[:, 0] / next_ones, order[:, 0])


# ---- the network ---------------------------------------------------------------------

NETWORK, STRAIGHT = "network", "straight line"
TRIVIAL = ("no noise", "data mean", "unchanged")
"""Guesses that need no network: ε̂ = 0, x̂_0 = the mean image, x̂_0 = x_t."""


class Probed(NamedTuple):
    """How well noise is separated from image: by the network, and without it.

    Attributes:
        errors: name → mean squared error of ε̂, [rows].
        readings: prediction → the same error if the output meant that, [rows].
        outside: share of the values of x̂_0 beyond ±1.1, [rows].
        x_t, x_0: [k, ..., C], the noised images and what the network makes of them, in
            the rows of the first `SHOWN` images.
    """

    errors: dict[str, np.ndarray]
    readings: dict[str, np.ndarray]
    outside: np.ndarray
    x_t: np.ndarray
    x_0: np.ndarray


SHOWN = 4
MARGIN = 1.1
"""x̂_0 of a pixel that is −1 falls on both sides of it; beyond this it is an error."""


def make_probe(
    schedule: process.Schedule,
    apply,
    *,
    prediction: str,
    variance: str,
    data: oracle.Gaussian,
    mesh,
    batch_size: int,
):
    """Return `(params, images, condition, index, t, t_given) → Probed`, compiled once.

    Row r takes images[index[r]] with noise of level t[r] and gives the network
    t_given[r]; the noise depends on index and t alone.

    Args:
        schedule: the process that the network was trained on.
        apply: `(params, x, t_seen, condition) → output`.
        prediction, variance: what its output means.
        data: mean and variance of every pixel, [H·W·C]: "straight line" is the best
            guess from one pixel alone.
        mesh: devices to share a batch.
        batch_size: rows at a time, a multiple of the devices.
    """
    tables = process.tables(schedule)
    pixelwise = oracle.noise_network(data, schedule)
    mean = jnp.asarray(data.mean, jnp.float32)

    def score(params, batch):
        x_0, t = batch["image"], batch["t"]
        stream = keys.key_for(SEED, "diagnose/noise", index=batch["index"])
        noise = keys.normal_each(keys.fold_in_each(stream, t), x_0.shape[1:])
        x_t = process.q_sample(tables, x_0, t, noise)
        seen = tables.timesteps_seen[batch["t_given"]]
        output = apply(params, x_t, seen, batch["condition"])
        parameter, _ = reverse.split_output(output, x_t, variance)
        x_0_hats = {
            name: read(tables, x_t, t, parameter)
            for name, read in reverse.PREDICTIONS.items()
        }
        readings = {
            name: process.noise_from_x_0(tables, x_t, t, x_0_hat)
            for name, x_0_hat in x_0_hats.items()
        }
        whole = jnp.broadcast_to(mean.reshape(x_0.shape[1:]), x_0.shape)
        guesses = {
            NETWORK: readings[prediction],
            "no noise": jnp.zeros_like(noise),
            "data mean": process.noise_from_x_0(tables, x_t, t, whole),
            "unchanged": process.noise_from_x_0(tables, x_t, t, x_t),
            STRAIGHT: pixelwise(x_t.reshape(len(t), -1), t).reshape(x_t.shape),
        }
        errors, readings = (
            {
                name: arrays.mean_flat(jnp.square(guess - noise))
                for name, guess in some.items()
            }
            for some in (guesses, readings)
        )
        x_0_hat = x_0_hats[prediction]
        outside = arrays.mean_flat((jnp.abs(x_0_hat) > MARGIN).astype(jnp.float32))
        return Probed(errors, readings, outside, x_t, x_0_hat)

    compiled = jax.jit(score, out_shardings=sharding.replicated(mesh))

    def probe(params, images, condition, index, t, t_given) -> Probed:
        parts = []
        for start in range(0, len(index), batch_size):
            rows = arrays.padded_range(start, batch_size, len(index))
            of_image = index[rows]
            batch = {"index": of_image, "t": t[rows], "t_given": t_given[rows]}
            batch = {name: v.astype(np.int32) for name, v in batch.items()}
            batch["image"] = np.asarray(images[of_image], np.float32)
            batch["condition"] = {key: v[of_image] for key, v in condition.items()}
            found = compiled(params, sharding.put_batch(mesh, batch))
            parts.append(_of_rows(found, of_image[: len(index) - start]))
        return jax.tree.map(lambda *v: np.concatenate(v), *parts)

    return probe


def _of_rows(found, index):
    """Return the rows that are no padding, on the host."""
    host = jax.tree.map(lambda v: np.asarray(v)[: len(index)], found)
    shown = index < SHOWN
    return host._replace(x_t=host.x_t[shown], x_0=host.x_0[shown])


def by_t(probe, params, images, condition, t: np.ndarray) -> Probed:
    """Probe every image at every t: [len(t), images] instead of rows."""
    count = len(images)
    index = np.tile(np.arange(count), len(t))
    level = np.repeat(t, count)
    found = probe(params, images, condition, index, level, level)
    return jax.tree.map(lambda v: v.reshape(len(t), -1, *v.shape[1:]), found)


def by_given_t(probe, params, images, condition, levels, t_given) -> np.ndarray:
    """Return the error of ε̂ at each noise level for each t given: [levels, t_given]."""
    count = len(images)
    index = np.tile(np.arange(count), len(levels) * len(t_given))
    level = np.repeat(levels, len(t_given) * count)
    said = np.tile(np.repeat(t_given, count), len(levels))
    found = probe(params, images, condition, index, level, said)
    shape = (len(levels), len(t_given), count)
    return found.errors[NETWORK].reshape(shape).mean(axis=2)


# ---- the sampler ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Exact:
    """The exact network of Gaussian data, as a sampler takes networks."""

    apply: Callable
    condition_spec: dict = dataclasses.field(default_factory=dict)

    def prepare(self, params, condition):
        """Return the condition as it is."""
        del params
        return condition


def exact_chain(recipe: recipe_lib.Recipe, whole: process.Schedule, mesh):
    """Run the sampler of a recipe with the exact network of Gaussian data.

    Args:
        recipe: its schedule, method, η and seed count.
        whole: the process before respacing.

    Returns:
        An `oracle.Deviation` of the samples from the law that they must have; None for
        a solver whose law is not known.
    """
    if recipe.solver.name not in oracle.METHODS:
        return None
    exact = oracle.noise_network(oracle.DATA, whole)
    of_noise = bool(np.all(whole.alpha_bar > 0))
    # x̂_0 = m + s² √(ᾱ/(1−ᾱ)) ε̂, which holds without any signal too
    slope = np.sqrt(whole.alpha_bar / (1 - whole.alpha_bar))
    slope = jnp.asarray(slope[:, None] * oracle.DATA.var, jnp.float32)
    mean = jnp.asarray(oracle.DATA.mean, jnp.float32)

    def apply(params, x_t, t, condition):
        del params, condition
        noise = exact(x_t, t)
        return noise if of_noise else mean + slope[t][:, None, None] * noise

    gaussian = dataclasses.replace(
        recipe,
        # The stand-in counts t in steps, whatever the run's network sees.
        schedule=dataclasses.replace(recipe.schedule, rescale_timesteps=False),
        prediction="noise" if of_noise else "x_0",
        variance="fixed_small",
        shape=(1, 1, len(oracle.DATA.mean)),
        guidance=(),
        transforms=(),
        path=None,
        hooks=(),
        condition=(),
        drawn=(),
    )
    made = sampler.Sampler(gaussian, _Exact(apply), mesh).make(
        None,
        start=0,
        stop=CHAIN_SAMPLES,
        batch_size=sampler.rounded_batch(CHAIN_SAMPLES, mesh),
    )
    method, options = recipe.solver
    asked = {setting.name: setting.value for setting in recipe.settings}
    law = oracle.sample_law(
        oracle.DATA,
        recipe.schedule,
        method=method,
        temperature=asked.get("temperature", 1.0),
        **dict(options),
    )
    samples = made.images.reshape(CHAIN_SAMPLES, -1)
    # Only x̂_0 from ε̂ loses digits where there is little signal.
    return oracle.deviation(samples, law, recipe.schedule if of_noise else None)


def make_walk(recipe: recipe_lib.Recipe, whole: process.Schedule, apply, mesh):
    """Return `(params, condition, count, steps) → images`, DDIM with η = 0.

    Any number of steps starts from the same noise and shares one compiled step.

    Args:
        recipe: of the run; method, η, guidance and steps do not count here.
        whole: the process before respacing.
        apply: `(params, x, t_seen, condition) → output`.
    """
    tables = process.tables(whole)
    step = samplers.ddim(0.0)

    @jax.jit
    def take(params, x, t, t_next, condition):
        denoise = reverse.denoiser(
            tables,
            lambda x_t, t_seen: apply(params, x_t, t_seen, condition),
            prediction=recipe.prediction,
            variance=recipe.variance,
            x_0_hooks=recipe.make_hooks(),
        )
        t, t_next = (jnp.full(len(x), value) for value in (t, t_next))
        return step(tables, x, denoise(x, t), t, t_next, None)

    def walk(params, condition, count: int, steps: int) -> np.ndarray:
        index = np.arange(count)
        start = keys.normal_each(
            keys.key_for(SEED, "diagnose/x_T", index=index), recipe.shape
        )
        batch = {"x": np.asarray(start), "condition": condition}
        batch = sharding.put_batch(mesh, batch)
        x = batch["x"]
        path = respacing.kept_timesteps(whole.num_steps, steps)[::-1]
        for t, t_next in zip(path, [*path[1:], -1], strict=True):
            x = take(params, x, np.int32(t), np.int32(t_next), batch["condition"])
        return np.asarray(x)

    return walk
