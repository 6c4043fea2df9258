"""Bits per dimension of a data set: mean, standard error, and the split by t."""

import dataclasses

import jax
import numpy as np

from ddpm_jax.core import keys
from ddpm_jax.diffusion import likelihood, process, reverse
from ddpm_jax.runtime import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class BitsResult:
    """Means over images of the bound's parts, in bits per dimension.

    `total` = `prior` + `rate` + `decoder`; `rate` is Σ_{t≥1} L_t. `standard_error` is
    that of `total` over images. `vb`, `x_0_mse` and `noise_mse` are [T′], indexed by t.
    """

    total: float
    standard_error: float
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
    """Return the compiled `(params, index, image, label) → likelihood.BitsPerDim`.

    Args:
        schedule: the process to score, respaced or not.
        apply: `(params, x, t_seen, labels) → output`.
        prediction, variance: what the network's output means.
        clip: clip x̂_0 to [−1, 1], as the original codes do here.
        levels: grey values of the data.
        seed: of the noise; image i gets the same noise in any batch.
    """
    tables = process.tables(schedule)
    hooks = (reverse.clip(-1, 1),) if clip else ()

    def score(params, index, image, label):
        stream = keys.key_for(seed, "evaluate/noise", index=index)

        def noise_fn(position):
            return keys.normal_each(
                keys.fold_in_each(stream, position), image.shape[1:]
            )

        denoise = reverse.denoiser(
            tables,
            lambda x_t, t_seen: apply(params, x_t, t_seen, label),
            prediction=prediction,
            variance=variance,
            x_0_hooks=hooks,
        )
        return likelihood.bits_per_dim(
            tables, denoise, image, noise_fn=noise_fn, levels=levels
        )

    return jax.jit(score)


def evaluate(
    scorer,
    mesh,
    params,
    dataset,
    *,
    num_images: int,
    batch_size: int,
    conditional: bool,
    should_stop=lambda: False,
    on_batch=lambda done: None,
) -> BitsResult | None:
    """Score the first `num_images` of a data set.

    Args:
        scorer: from `make_scorer`.
        mesh: devices to share each batch.
        params: parameters on the mesh.
        dataset: has `fetch(indices) → {"image", "label"}`.
        batch_size: a multiple of the devices; the last batch is padded.
        conditional: whether the network takes labels.
        should_stop: asked between batches; True ends with None.
        on_batch: told the number of images done.

    Returns:
        The result, or None if stopped. Sums are float64 on the host.
    """
    rows = []
    for start in range(0, num_images, batch_size):
        if should_stop():
            return None
        count = min(batch_size, num_images - start)
        index = np.minimum(np.arange(start, start + batch_size), num_images - 1)
        fetched = dataset.fetch(index)
        batch = {"index": index.astype(np.int32), "image": fetched["image"]}
        if conditional:
            batch["label"] = fetched["label"]
        batch = mesh_lib.put_batch(mesh, batch)
        bits = scorer(params, batch["index"], batch["image"], batch.get("label"))
        rows.append(jax.tree.map(lambda value, n=count: np.asarray(value)[:n], bits))
        on_batch(start + count)
    return _summarise(rows)


def _summarise(rows):
    total, prior, vb, x_0_mse, noise_mse = (
        np.concatenate(parts).astype(np.float64) for parts in zip(*rows, strict=True)
    )
    by_t = vb.mean(axis=0)
    error = total.std(ddof=1) / np.sqrt(len(total)) if len(total) > 1 else 0.0
    return BitsResult(
        total=float(total.mean()),
        standard_error=float(error),
        prior=float(prior.mean()),
        rate=float(by_t[1:].sum()),
        decoder=float(by_t[0]),
        vb=by_t,
        x_0_mse=x_0_mse.mean(axis=0),
        noise_mse=noise_mse.mean(axis=0),
        num_images=len(total),
    )
