"""Loss and accuracy of a classifier at fixed images, noise and timesteps.

Test images show what it has learned; as many training images, what it knows by heart.
"""

from collections.abc import Mapping

import jax
import numpy as np

from ddpm_jax.core import classification, errors, keys
from ddpm_jax.diffusion import process
from ddpm_jax.metrics import validation
from ddpm_jax.runtime import sharding

TEST, TRAINING = "validation", "training_images"  # begin the names in its record


def make_validator(
    schedule: process.Schedule,
    apply,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    seed: int,
    mesh,
    batch_size: int,
    timesteps_per_image: int = 4,
):
    """Return `params → dict`, what the classifier makes of noisy images.

    The result holds "<split>_loss", "<split>_accuracy" and, with more than five
    classes, "<split>_top5_accuracy", each also by quarter of t, "…_q0" … "…_q3" (None
    where no t falls): means over all pairs of image and t, whatever the batch size or
    number of devices.

    Args:
        schedule: the process that the network is trained on.
        apply: `(params, x, t_seen, {}) → logits`.
        splits: by name images float32 [n, ..., C] and labels int32 [n], the same ones
            every time.
        seed: of the noise; no two splits share any.
        mesh: devices to share each batch.
        batch_size: pairs at a time, a multiple of the devices; changes no value.
        timesteps_per_image: k, from 1; the cost is n·k network evaluations a split.

    Raises:
        Refusal: no images, or a batch that the devices cannot share.
    """
    for images, _ in splits.values():
        if not len(images):
            raise errors.Refusal(
                "no test images to validate on: raise data.test_fraction, or set "
                "train.validate_every=0"
            )
    sharding.check_batch(mesh, batch_size, "the validation batch")
    scorer = _scorer(schedule, apply, seed, mesh)

    def validate(params) -> dict:
        found = {}
        for number, (name, (images, label)) in enumerate(splits.items()):
            fixed = validation.pairs(
                len(images), timesteps_per_image, schedule.num_steps
            )
            condition = {"label": label, "split": np.full_like(label, number)}
            parts = []
            for batch, kept in validation.batches(
                fixed, images, condition, mesh, batch_size
            ):
                terms = scorer(params, batch)
                parts.append({n: np.float64(v)[:kept] for n, v in terms.items()})
            for term in parts[0]:
                values = np.concatenate([part[term] for part in parts])
                found |= validation.means(
                    f"{name}_{term}", values, fixed.t, schedule.num_steps
                )
        return found

    return validate


def _scorer(schedule, apply, seed, mesh):
    """Return the compiled `(params, batch) → terms`, each [B]."""
    tables = process.tables(schedule)

    def score(params, batch):
        stream = keys.key_for(seed, "validate/noise", index=batch["index"])
        stream = keys.fold_in_each(stream, batch["part"])
        stream = keys.fold_in_each(stream, batch["condition"]["split"])
        x_0, t = batch["image"], batch["t"]
        x_t = process.q_sample(tables, x_0, t, keys.normal_each(stream, x_0.shape[1:]))
        logits = apply(params, x_t, tables.timesteps_seen[t], {})
        return classification.terms(logits, batch["condition"]["label"])

    return jax.jit(score, out_shardings=sharding.replicated(mesh))
