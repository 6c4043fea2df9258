"""Accuracy of a classifier by noise level: how well x_t tells the class of x_0."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, classification, keys
from ddpm_jax.diffusion import process
from ddpm_jax.runtime import sharding

LEVELS = 16  # values of t at which every image is scored


def levels(num_steps: int, count: int = LEVELS) -> np.ndarray:
    """Return the middles of `count` equal parts of 0 … T−1, int32, each value once."""
    middles = (np.arange(count) + 0.5) * num_steps / count
    return np.unique(np.floor(middles)).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured; arrays [K] go by the levels of t, without the clean images.

    Attributes:
        timesteps: int [K].
        mean: accuracy, mean over images and levels.
        standard_error: of `mean` over images, None for a single one.
        by_t: by name of a term, its means over images.
        error_by_t: binomial standard errors of the accuracy.
        clean: by name of a term, its mean over the images themselves, seen at t = 0.
        clean_error: binomial standard error of the accuracy there.
        num_images: that were scored.
    """

    timesteps: np.ndarray
    mean: float
    standard_error: float | None
    by_t: dict[str, np.ndarray]
    error_by_t: np.ndarray
    clean: dict[str, float]
    clean_error: float
    num_images: int


def make_scorer(schedule: process.Schedule, apply, timesteps, *, seed: int, mesh):
    """Return the compiled `(params, index, image, label) → terms`, each [K + 1, B].

    Row k holds the terms of `classification.terms` at timesteps[k], the last row those
    of the images without noise at t = 0.

    Args:
        schedule: the process that the network was trained on.
        apply: `(params, x, t_seen, {}) → logits`.
        timesteps: int [K].
        seed: of the noise; image i gets the same noise in any batch.
        mesh: devices to share each batch.
    """
    tables = process.tables(schedule)
    places = jnp.arange(len(timesteps) + 1)
    t_of = jnp.append(jnp.asarray(timesteps, jnp.int32), 0)

    def score(params, index, image, label):
        stream = keys.key_for(seed, "accuracy/noise", index=index)

        def at_level(place):
            t = jnp.broadcast_to(t_of[place], label.shape)
            drawn = keys.fold_in_each(stream, place)
            noise = keys.normal_each(drawn, image.shape[1:])
            noisy = process.q_sample(tables, image, t, noise)
            x_t = jnp.where(place < len(timesteps), noisy, image)
            logits = apply(params, x_t, tables.timesteps_seen[t], {})
            return classification.terms(logits, label)

        return jax.lax.map(at_level, places)

    return jax.jit(score, out_shardings=sharding.replicated(mesh))


def evaluate(
    scorer,
    mesh,
    params,
    dataset,
    *,
    timesteps,
    num_images: int,
    batch_size: int,
    should_stop=lambda: False,
    on_batch=lambda count: None,
) -> Result | None:
    """Measure the first `num_images` of a data set; None if stopped.

    Args:
        scorer: from `make_scorer`.
        mesh: devices to share each batch.
        params: parameters on the mesh.
        dataset: has `fetch(indices) → {"image", "label", …}`.
        timesteps: those of the scorer.
        batch_size: a multiple of the devices; the last batch is padded.
        should_stop: asked between batches.
        on_batch: called with the number of images that are done.
    """
    parts, count = [], 0
    while count < num_images:
        if should_stop():
            return None
        index = arrays.padded_range(count, batch_size, num_images)
        own = index[sharding.process_rows(mesh, batch_size)]
        fetched = dataset.fetch(own)
        batch = {"index": own.astype(np.int32)}
        batch |= {name: fetched[name] for name in ("image", "label")}
        batch = sharding.put_batch(mesh, batch)
        terms = scorer(params, batch["index"], batch["image"], batch["label"])
        kept = min(batch_size, num_images - count)
        parts.append({name: np.float64(v)[:, :kept] for name, v in terms.items()})
        count += kept
        on_batch(count)
    whole = {n: np.concatenate([p[n] for p in parts], axis=1) for n in parts[0]}
    return _result(whole, np.asarray(timesteps))


def _result(terms, timesteps) -> Result:
    """Return the means of terms [K + 1, n]."""
    means = {name: values.mean(axis=1) for name, values in terms.items()}
    of_image = terms["accuracy"][:-1].mean(axis=0)
    count = len(of_image)
    share = means["accuracy"]
    binomial = np.sqrt(share * (1 - share) / count)
    error = float(of_image.std(ddof=1) / math.sqrt(count)) if count > 1 else None
    return Result(
        timesteps=timesteps,
        mean=float(of_image.mean()),
        standard_error=error,
        by_t={name: values[:-1] for name, values in means.items()},
        error_by_t=binomial[:-1],
        clean={name: float(values[-1]) for name, values in means.items()},
        clean_error=float(binomial[-1]),
        num_images=count,
    )
