"""Checks of what comes out: steps, colour, detail, and copies of training images."""

import math

import numpy as np

from ddpm_jax.diagnosis.findings import NOT_CHECKED, OK, PROBLEM, WATCH, Finding
from ddpm_jax.report import hints, html

NEAR, FAR = 0.1, 0.3  # root mean squared difference, in deviations of the data
SURE = 4.0  # standard errors: by chance once in 10⁴ channels
UNEVEN = 1.25, 2.0  # ratio of detail, either way, to watch and to call a problem
RARE = 1e-3  # probability of so many copies if samples were new images
COPIED = 0.1  # share of the samples
FEWEST = 16  # held-out images that can tell what is usual
RGB = ("red", "green", "blue")


def steps(counts: list[int], differences: list[float], *, taken: int, whole: int):
    """Judge whether more steps would change the samples.

    Args:
        counts: numbers of steps, ascending.
        differences: [len(counts) − 1], root mean squared difference of the samples of
            neighbouring counts from the same noise, in deviations of the data.
        taken: by the run's sampling; whole: T.

    Returns:
        A Finding.
    """
    reason = (
        "DDIM with η = 0 from the same noise: what changes when the steps are doubled "
        "is the error of too few of them, and about halves each time. Below "
        f"{NEAR:g} deviations of the data pictures look alike. Ancestral sampling "
        "wants more steps than DDIM."
    )
    if not differences or not np.isfinite(differences).all():
        said = "samples are not finite" if differences else "T is too small to halve"
        return Finding("steps", NOT_CHECKED, said, reason)
    # Beyond the largest count that was tried the difference can only be smaller.
    place = next((i for i, n in enumerate(counts[:-1]) if n >= taken), len(counts) - 2)
    few, many, change = counts[place], counts[place + 1], differences[place]
    said = (
        f"{taken:,} steps; from {few:,} to {many:,} the samples change by "
        f"{html.short(float(change), 2)} σ of the data"
    )
    if taken >= whole or change <= NEAR:
        return Finding("steps", OK, said, reason)
    remedy = f"sample with --config.sampling.steps={min(2 * taken, whole)}"
    verdict = WATCH if change <= FAR else PROBLEM
    return Finding("steps", verdict, said, reason, remedy)


def colour(samples: np.ndarray, real: np.ndarray) -> Finding:
    """Judge the mean of each channel against that of real images.

    Args:
        samples, real: [n, H, W, C], of the same classes.
    """
    if not np.isfinite(samples).all():
        return not_finite("colour")
    ours, theirs = (
        images.mean(axis=(1, 2), dtype=np.float64) for images in (samples, real)
    )
    difference = ours.mean(axis=0) - theirs.mean(axis=0)
    error = np.sqrt(
        ours.var(axis=0, ddof=1) / len(ours) + theirs.var(axis=0, ddof=1) / len(theirs)
    )
    spread = real.std(axis=(0, 1, 2), dtype=np.float64)
    size = np.abs(difference) / np.maximum(error, 1e-12)
    shift = difference / np.maximum(spread, 1e-12)
    sure = size > SURE
    worst = int(np.argmax(np.where(sure, np.abs(shift), -1) if sure.any() else size))
    said = (
        f"{_channel(worst, len(shift))} is off by {_signed(shift[worst])} σ of the "
        f"data, {size[worst]:.1f} standard errors"
    )
    reason = (
        f"{len(samples)} samples against {len(real)} real images of the same classes. "
        f"A difference counts beyond {SURE:g} standard errors; from {hints.TINT:g} σ "
        f"it is seen side by side, from {hints.STRONG_TINT:g} σ at once."
    )
    if not sure.any() or abs(shift[worst]) < hints.TINT:
        return Finding("colour", OK, said, reason)
    remedy = (
        "train longer with a larger train.batch_size; if it stays, a new run with "
        "diffusion.prediction=v and diffusion.zero_terminal_snr=True; guidance above 1 "
        "tints too"
    )
    strong = abs(shift[worst]) >= hints.STRONG_TINT
    return Finding("colour", PROBLEM if strong else WATCH, said, reason, remedy)


def _signed(value):
    return f"{value:+.2f}".replace("-", "−")


def _channel(index, count):
    if count == 1:
        return "brightness"
    return RGB[index] if count == len(RGB) else f"channel {index}"


def detail(samples: np.ndarray, real: np.ndarray) -> Finding:
    """Judge how much neighbouring pixels differ: blur is less, noise is more.

    Args:
        samples, real: [n, H, W, C], of the same classes.
    """
    if not np.isfinite(samples).all():
        return not_finite("detail")
    ours, theirs = _roughness(samples), _roughness(real)
    usual = max(float(theirs.mean()), 1e-12)
    ratio = float(ours.mean()) / usual
    error = np.hypot(*(np.std(r, ddof=1) / math.sqrt(len(r)) for r in (ours, theirs)))
    size = abs(float(ours.mean()) - usual) / max(float(error), 1e-12)
    said = (
        f"neighbouring pixels differ {html.short(ratio, 3)} times as much as in real "
        f"images ({size:.1f} standard errors)"
    )
    reason = (
        "Mean squared difference of neighbouring pixels: below 1 samples are blurred "
        f"or flat, above 1 noisy or harsh. Counted beyond {SURE:g} standard errors and "
        f"a factor of {UNEVEN[0]:g}; {UNEVEN[1]:g} is plain to see."
    )
    factor = max(ratio, 1 / max(ratio, 1e-12))
    if size <= SURE or factor < UNEVEN[0]:
        return Finding("detail", OK, said, reason)
    remedy = (
        "the samples are noisy: look at denoising, weights and steps above, then train "
        "longer"
        if ratio > 1
        else "the samples are blurred: sample with more steps, train longer, or with a "
        "larger network"
    )
    verdict = PROBLEM if factor >= UNEVEN[1] else WATCH
    return Finding("detail", verdict, said, reason, remedy)


def _roughness(images):
    """Return the mean squared difference of neighbouring pixels, [n]."""
    images = np.asarray(images, np.float64)
    parts = [
        np.square(np.diff(images, axis=axis)).reshape(len(images), -1)
        for axis in (1, 2)
    ]
    return np.concatenate(parts, axis=1).mean(axis=1)


def not_finite(name: str) -> Finding:
    """Return the finding about samples that hold NaN."""
    return Finding(
        name,
        PROBLEM,
        "samples hold NaN or infinity",
        remedy="the weights have diverged: sample from an earlier checkpoint, and go "
        "on with a lower train.learning_rate",
    )


def copies(samples: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return which samples are closer to a training image than any held-out image is.

    Args:
        samples, held_out: [n], [m] relative distances from `measure.nearest`.
    """
    return samples < held_out.min()


def memorising(samples: np.ndarray, held_out: np.ndarray, *, looked_at: int) -> Finding:
    """Judge whether samples are training images.

    Args:
        samples, held_out: [n], [m] relative distances from `measure.nearest`.
        looked_at: number of training images.
    """
    reason = (
        "The distance to the nearest training image over that to the next ten, for "
        "samples and for images that were held out. If samples were as new as these, "
        "the closest would fall on either side by chance: so many samples below every "
        f"held-out image have a probability of less than {RARE:g}, the limit here."
    )
    if len(held_out) < FEWEST:
        return Finding(
            "copies",
            NOT_CHECKED,
            f"{len(held_out)} held-out images cannot tell which distance is usual",
            reason,
            "raise data.test_fraction in the next run",
        )
    count = int(copies(samples, held_out).sum())
    said = (
        f"{count} of {len(samples)} samples are closer to one of {looked_at:,} "
        f"training images than any of {len(held_out)} held-out images is"
    )
    if not count or chance(count, len(samples), len(held_out)) > RARE:
        return Finding("copies", OK, said, reason)
    remedy = (
        "the network knows training images by heart: more data, fewer steps, "
        "model.dropout, or data.flip=True where a mirrored image is as good"
    )
    verdict = PROBLEM if count >= COPIED * len(samples) else WATCH
    return Finding("copies", verdict, said, reason, remedy)


def chance(count: int, samples: int, held_out: int) -> float:
    """Return the probability that the `count` smallest are all samples, by chance.

    Of n samples and m held-out images in random order: Π_{i<count} (n−i)/(n+m−i).
    """
    terms = ((samples - i) / (samples + held_out - i) for i in range(count))
    return math.prod(terms)
