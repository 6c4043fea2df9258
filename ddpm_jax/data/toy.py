"""Small data of known laws, made on the spot: the swiss roll and the binary heartbeat.

Their laws are the ground truth that the 2015 paper measures against.
"""

import hashlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data.dataset import SPLITS, Dataset, Request

BINS, PERIOD = 20, 5  # of a heartbeat
NUM_HEARTBEATS = {"train": 4000, "test": 1000}
NUM_POINTS = {"train": 20_000, "test": 5_000}
FIRST_ANGLE, LAST_ANGLE = 1.5 * np.pi, 4.5 * np.pi  # of scikit-learn's swiss roll


def heartbeat(split: str, request: Request) -> Dataset:
    """Return sequences [20, 1] of −1 and 1, one pulse in every 5 bins.

    The phase of the pulses is uniform over its five values, which follow each other:
    the entropy of the law is log2(5) = 2.322 bits.

    Raises:
        Refusal: a path, a size or channels are asked for.

    Reference: Sohl-Dickstein et al. 2015, section 3.1.2.
    """
    _check_plain("heartbeat", "sequences of 20 bins", request)
    beats = heartbeats()

    def read(indices):
        rows = beats[np.asarray(indices) % PERIOD]
        return (2 * rows - 1)[..., None], np.zeros(len(rows), np.int32)

    return Dataset(
        name="heartbeat",
        split=split,
        shape=(BINS, 1),
        levels=2,
        num_classes=None,
        class_names=(),
        num_examples=NUM_HEARTBEATS[split],
        read=read,
        content=hashlib.sha256(beats.tobytes()).hexdigest(),
    )


def heartbeats() -> np.ndarray:
    """Return the five sequences, float32 [5, 20] of zeros and ones."""
    phase, place = np.arange(PERIOD)[:, None], np.arange(BINS)
    return (place % PERIOD == phase).astype(np.float32)


def swissroll(split: str, request: Request) -> Dataset:
    """Return points [2] on a swiss roll, without noise, of unit variance per axis.

    The angle is uniform on 3π/2 … 9π/2 and the radius proportional to it, as in
    scikit-learn's `make_swiss_roll`, of which this is the plane without its width.

    Raises:
        Refusal: a path, a size or channels are asked for.

    Reference: Sohl-Dickstein et al. 2015, section 3.1.1, which names no noise.
    """
    _check_plain("swissroll", "points of 2 coordinates", request)
    generator = np.random.default_rng(SPLITS.index(split))
    angle = generator.uniform(FIRST_ANGLE, LAST_ANGLE, NUM_POINTS[split])
    points = roll_at(angle).astype(np.float32)

    def read(indices):
        return points[indices], np.zeros(len(indices), np.int32)

    return Dataset(
        name="swissroll",
        split=split,
        shape=(2,),
        levels=None,
        num_classes=None,
        class_names=(),
        num_examples=len(points),
        read=read,
        content=hashlib.sha256(points.tobytes()).hexdigest(),
    )


def roll_at(angle) -> np.ndarray:
    """Return the points of the roll at some angles, float64 [..., 2].

    Each axis has mean 0 and variance 1 over the uniform law of the angle.
    """
    mean, deviation = _roll_moments()
    return (_plain_roll(np.asarray(angle, np.float64)) - mean) / deviation


def _plain_roll(angle):
    return np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=-1)


def _roll_moments():
    """Return mean and deviation of each axis, by the midpoint rule."""
    edges = np.linspace(FIRST_ANGLE, LAST_ANGLE, 200_001)
    points = _plain_roll((edges[1:] + edges[:-1]) / 2)
    return points.mean(axis=0), points.std(axis=0)


def _check_plain(name, what, request):
    """Refuse what is asked of images where there are none."""
    asked = {
        "data.path": request.path or "",
        "data.image_size": request.image_size or (),
        "data.channels": request.channels,
        "data.crop": request.crop,
    }
    usual = {"data.path": "", "data.image_size": (), "data.channels": 0}
    usual["data.crop"] = "none" if request.crop == "none" else "center"
    for field, value in asked.items():
        if value != usual[field]:
            raise errors.Refusal(
                f"{field}={value!r} has no meaning for {name}, which is {what} made on "
                f"the spot: leave it {usual[field]!r}"
            )
