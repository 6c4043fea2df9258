"""Validation loss: the training loss of held-out images at fixed noise and timesteps.

The loss of a training batch jumps with its draws of t and noise, and flattens early.
With the same images, timesteps and noise every time, what is left is the network.
"""

import dataclasses

import jax
import numpy as np

from ddpm_jax.core import arrays, errors, keys
from ddpm_jax.diffusion import losses, process
from ddpm_jax.runtime import sharding

GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The fixed (image, timestep) pairs, part by part: pair p = part·n + image.

    Attributes:
        image: int32 [n·k], index of the image.
        part: int32 [n·k], which of the k equal parts of 0 … T−1 holds t.
        t: int32 [n·k].
    """

    image: np.ndarray
    part: np.ndarray
    t: np.ndarray


def pairs(num_images: int, per_image: int, num_steps: int) -> Pairs:
    """Spread num_images·per_image timesteps evenly over 0 … num_steps−1.

    Every image gets one t in each of per_image equal parts. Within a part the images
    stand in the order of their multiples of the golden ratio modulo 1, so that
    neighbours in the data, often of one class, do not share their noise levels.
    """
    rank = np.argsort(np.argsort(np.arange(num_images) * GOLDEN_RATIO % 1))
    part = np.repeat(np.arange(per_image), num_images)
    image = np.tile(np.arange(num_images), per_image)
    position = (part * num_images + rank[image] + 0.5) / (num_images * per_image)
    t = np.floor(position * num_steps)
    return Pairs(*(values.astype(np.int32) for values in (image, part, t)))


def make_validator(
    schedule: process.Schedule,
    apply,
    objective: dict,
    *,
    images: np.ndarray,
    condition: dict[str, np.ndarray],
    seed: int,
    mesh,
    batch_size: int,
    timesteps_per_image: int = 8,
):
    """Return `params → dict`, the loss without dropout at fixed t and noise.

    The result holds "validation_loss" and, by quarter of t, "validation_loss_q0" …
    "_q3" (None where no t falls): means over all pairs of image and t, in the unit of
    the training loss with uniform t, whatever the batch size or number of devices.
    "validation_mse_by_t" is the squared error of the predicted quantity, one mean over
    all images for each of the k parts of the timesteps, and "t" the mean t of each.

    Args:
        schedule: the process that the network is trained on.
        apply: `(params, x, t_seen, condition) → output`.
        objective: keyword arguments of `losses.training_losses`.
        images: float32 [n, ..., C] in [−1, 1], the same ones every time.
        condition: arrays [n, ...] by key, {} for an unconditional network.
        seed: of the noise.
        mesh: devices to share each batch.
        batch_size: pairs at a time, a multiple of the devices; changes no value.
        timesteps_per_image: k, from 1; the cost is n·k network evaluations.

    Raises:
        Refusal: no images, or a batch that the devices cannot share.
    """
    count = len(images)
    if not count:
        raise errors.Refusal(
            "no test images to validate on: raise data.test_fraction, or set "
            "train.validate_every=0"
        )
    for key, values in condition.items():
        if len(values) != count:
            raise ValueError(f"{len(values)} of {key!r} for {count} images")
    sharding.check_batch(mesh, batch_size, "the validation batch")
    fixed = pairs(count, timesteps_per_image, schedule.num_steps)
    scorer = _scorer(schedule, apply, objective, seed, mesh)

    def validate(params) -> dict:
        losses_and_errors = [
            np.stack(scorer(params, batch))[:, :kept]
            for batch, kept in batches(fixed, images, condition, mesh, batch_size)
        ]
        values = np.concatenate(losses_and_errors, axis=1).astype(np.float64)
        return _summary(fixed, *values, schedule.num_steps, timesteps_per_image)

    return validate


def _scorer(schedule, apply, objective, seed, mesh):
    """Return the compiled `(params, batch) → loss [B], mse [B]`."""
    tables = process.tables(schedule)

    def score(params, batch):
        stream = keys.key_for(seed, "validate/noise", index=batch["index"])
        stream = keys.fold_in_each(stream, batch["part"])
        x_0 = batch["image"]
        terms = losses.training_losses(
            tables,
            lambda x_t, t_seen: apply(params, x_t, t_seen, batch["condition"]),
            x_0,
            batch["t"],
            keys.normal_each(stream, x_0.shape[1:]),
            **objective,
        )
        return terms["loss"], terms["mse"]

    return jax.jit(score, out_shardings=sharding.replicated(mesh))


def batches(fixed: Pairs, images, condition, mesh, batch_size: int):
    """Yield batches of one size on the devices, and how many rows of each count.

    Args:
        fixed: the pairs of image and timestep.
        images: float32 [n, ..., C].
        condition: arrays [n, ...] by key.
        mesh: devices to share each batch.
        batch_size: pairs at a time.
    """
    count = len(fixed.t)
    for start in range(0, count, batch_size):
        rows = arrays.padded_range(start, batch_size, count)
        image = fixed.image[rows]
        batch = {
            "index": image,
            "part": fixed.part[rows],
            "t": fixed.t[rows],
            "image": np.asarray(images[image], np.float32),
            "condition": {key: values[image] for key, values in condition.items()},
        }
        yield sharding.put_whole(mesh, batch), min(batch_size, count - start)


def means(name: str, values: np.ndarray, t: np.ndarray, num_steps: int) -> dict:
    """Return the mean of values [p] as `name`, and by quarter of t as `name`_q0 … _q3.

    A quarter without any t has None.
    """
    result = {name: float(values.mean())}
    quarter = losses.QUARTERS * t // num_steps
    for q in range(losses.QUARTERS):
        member = values[quarter == q]
        result[f"{name}_q{q}"] = float(member.mean()) if len(member) else None
    return result


def _summary(fixed, loss, mse, num_steps, per_image):
    """Return the means over all pairs, by quarter and by part of the timesteps."""
    result = means("validation_loss", loss, fixed.t, num_steps)
    by_part = mse.reshape(per_image, -1).mean(axis=1)
    mean_t = fixed.t.reshape(per_image, -1).mean(axis=1)
    return {**result, "validation_mse_by_t": by_part.tolist(), "t": mean_t.tolist()}
