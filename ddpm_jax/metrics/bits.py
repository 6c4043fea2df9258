"""Bits per dimension of a data set: mean, standard error, and the split by t."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, conditions, keys
from ddpm_jax.diffusion import likelihood, process, reverse
from ddpm_jax.runtime import sharding


@dataclasses.dataclass(frozen=True)
class BitsResult:
    """Means over images of the bound's parts, in bits per dimension.

    `total` = `rate` + `decoder`; `rate` is `prior` + Σ_{t≥1} L_t, as in DDPM section
    4.3. `standard_error` is that of `total` over images, None for a single one. `vb`,
    `x_0_mse` and `noise_mse` are [T′], indexed by t.
    """

    total: float
    standard_error: float | None
    prior: float
    rate: float
    decoder: float
    vb: np.ndarray
    x_0_mse: np.ndarray
    noise_mse: np.ndarray
    num_images: int


def make_scorer(
    schedule: process.Schedule,
    apply,
    *,
    prediction: str,
    variance: str,
    clip: bool,
    levels: int,
    seed: int,
):
    """Return the compiled `(params, index, image, condition) → BitsPerDim`.

    Args:
        schedule: the process to score, respaced or not.
        apply: `(params, x, t_seen, condition) → output`.
        prediction, variance: what the network's output means.
        clip: clip x̂_0 to [−1, 1], as the original codes do here.
        levels: grey values of the data.
        seed: of the noise; image i gets the same noise in any batch.

    Raises:
        Refusal: no number of levels.
    """
    likelihood.check_levels(levels)
    tables = process.tables(schedule)
    denoiser = _denoisers(tables, apply, prediction, variance, clip)

    def score(params, index, image, condition):
        return likelihood.bits_per_dim(
            tables,
            denoiser(params, condition),
            image,
            noise_fn=_noise_fn(seed, index, image.shape[1:]),
            levels=levels,
        )

    return jax.jit(score)


def make_estimator(
    schedule: process.Schedule,
    apply,
    *,
    prediction: str,
    variance: str,
    clip: bool,
    seed: int,
):
    """Return the compiled `(params, index, image, condition, t) → x̂_0` of a score.

    It is what a receiver has who was sent x_t, with the noise that the scorer of the
    same seed draws for image and t: its squared errors are the scorer's.

    Args:
        schedule, apply, prediction, variance, clip, seed: see `make_scorer`.
    """
    tables = process.tables(schedule)
    denoiser = _denoisers(tables, apply, prediction, variance, clip)

    def estimate(params, index, image, condition, t):
        noise = _noise_fn(seed, index, image.shape[1:])(tables.num_steps - 1 - t)
        t = jnp.full(image.shape[0], t)
        x_t = process.q_sample(tables, image, t, noise)
        return denoiser(params, condition)(x_t, t).x_0

    return jax.jit(estimate)


def _denoisers(tables, apply, prediction, variance, clip):
    """Return `(params, condition) → denoiser`."""
    hooks = (reverse.clipping(-1, 1),) if clip else ()
    return lambda params, condition: reverse.denoiser(
        tables,
        lambda x_t, t_seen: apply(params, x_t, t_seen, condition),
        prediction=prediction,
        variance=variance,
        x_0_hooks=hooks,
    )


def _noise_fn(seed, index, shape):
    """Return position → noise of some images, see `likelihood.bits_per_dim`."""
    stream = keys.key_for(seed, "evaluate/noise", index=index)
    return lambda position: keys.normal_each(keys.fold_in_each(stream, position), shape)


@dataclasses.dataclass
class Sums:
    """What has been scored so far, in float64: per image totals, sums by t.

    Memory grows by two numbers an image, whatever the number of timesteps.

    Attributes:
        total, prior: [n] per image, bits per dimension.
        by_t: [3, T′] sums over images of the terms, the x_0 and the noise errors.
    """

    total: np.ndarray
    prior: np.ndarray
    by_t: np.ndarray

    @classmethod
    def empty(cls, num_steps: int) -> "Sums":
        """Return the sums of no image."""
        return cls(np.zeros(0), np.zeros(0), np.zeros((3, num_steps)))

    @property
    def count(self) -> int:
        """Images scored."""
        return len(self.total)

    def add(self, scores: likelihood.BitsPerDim, count: int) -> "Sums":
        """Return the sums with the first `count` rows of a batch."""
        rows = [sharding.to_host(part)[:count].astype(np.float64) for part in scores]
        total, prior, *tables = rows
        return Sums(
            np.concatenate([self.total, total]),
            np.concatenate([self.prior, prior]),
            self.by_t + np.stack([table.sum(axis=0) for table in tables]),
        )

    def result(self) -> BitsResult:
        """Return the means; the standard error needs two images."""
        vb, x_0_mse, noise_mse = self.by_t / self.count
        prior = float(self.prior.mean())
        error = None
        if self.count > 1:
            error = float(self.total.std(ddof=1) / np.sqrt(self.count))
        return BitsResult(
            total=float(self.total.mean()),
            standard_error=error,
            prior=prior,
            rate=prior + float(vb[1:].sum()),
            decoder=float(vb[0]),
            vb=vb,
            x_0_mse=x_0_mse,
            noise_mse=noise_mse,
            num_images=self.count,
        )


def evaluate(
    scorer,
    mesh,
    params,
    dataset,
    *,
    sums: Sums,
    num_images: int,
    batch_size: int,
    condition_spec: conditions.Specs,
    should_stop=lambda: False,
    on_batch=lambda sums: None,
) -> Sums:
    """Score the first `num_images` of a data set, going on from `sums`.

    Args:
        scorer: from `make_scorer`.
        mesh: devices to share each batch.
        params: parameters on the mesh.
        dataset: has a `name` and `fetch(indices) → {"image", …}`.
        sums: of the images scored before, `Sums.empty(T′)` at first.
        batch_size: a multiple of the devices; the last batch is padded.
        condition_spec: what the network reads of the data besides images.
        should_stop: asked between batches.
        on_batch: called with the sums after each batch.

    Returns:
        The sums, of fewer images than asked for if stopped.
    """
    while sums.count < num_images and not should_stop():
        start = sums.count
        index = arrays.padded_range(start, batch_size, num_images)
        batch = fetched(dataset, index, mesh, condition_spec)
        scores = scorer(params, batch["index"], batch["image"], batch["condition"])
        sums = sums.add(scores, min(batch_size, num_images - start))
        on_batch(sums)
    return sums


def fetched(dataset, index: np.ndarray, mesh, condition_spec: conditions.Specs):
    """Return index, image and condition of some images, on the mesh.

    Args:
        dataset: see `evaluate`.
        index: [B] of the images, B a multiple of the devices.
        mesh: devices to share the batch.
        condition_spec: what the network reads of the data besides images.
    """
    own = index[sharding.process_rows(mesh, len(index))]
    found = dataset.fetch(own)
    batch = {
        "index": own.astype(np.int32),
        "image": found["image"],
        "condition": conditions.selected(condition_spec, found, dataset.name),
    }
    return sharding.put_batch(mesh, batch)
