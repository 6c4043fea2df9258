"""The second data set: points of a spiral on a grid of grey values, all of it known.

A digit takes a minute to learn, a spiral seconds, so that five seeds of every arm are
trained in an evening on one core. Its points are an image of two pixels: 256 values
between −1 and 1, so that bits per dimension are those of a lossless code and cannot go
below the entropy of the law, which is known exactly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from benchmarks.claims import mixture
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.models import custom

LEVELS = 256
BIN = 2 / (LEVELS - 1)
TURNS = np.pi * np.array([1.0, 4.0])  # first and last angle
REACH, DEVIATION = 0.85, 0.02  # of the spiral's end, and of the noise across it
NUM_POINTS = {"train": 20_000, "test": 4_000}
WIDTH, HIDDEN, FREQUENCIES = 96, 3, 16  # of the network
CURVE = 4000  # places along the spiral, of which the law is made


def spiral(angle) -> np.ndarray:
    """Return the points of the spiral at some angles, [n, 2]."""
    radius = REACH * angle / TURNS[1]
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def dataset(split: str) -> dataset_lib.Dataset:
    """Return the points of a split, [2], each on the grid of the values."""
    random = np.random.default_rng((2015, dataset_lib.SPLITS.index(split)))
    where = spiral(random.uniform(*TURNS, NUM_POINTS[split]))
    where = where + DEVIATION * random.normal(size=where.shape)
    values = np.clip(np.rint((where + 1) / BIN), 0, LEVELS - 1)
    points = (values * BIN - 1).astype(np.float32)
    return dataset_lib.Dataset(
        name="points",
        split=split,
        shape=(2,),
        levels=LEVELS,
        num_classes=None,
        class_names=(),
        num_examples=len(points),
        read=lambda rows: (points[rows], np.zeros(len(rows), np.int32)),
        content=f"spiral {TURNS} {REACH} {DEVIATION}",
    )


def law() -> np.ndarray:
    """Return the probability of each pair of values, [LEVELS, LEVELS]."""
    edges = np.linspace(TURNS[0], TURNS[1], CURVE + 1)
    centres = spiral((edges[1:] + edges[:-1]) / 2)
    cuts = (np.arange(LEVELS - 1) + 0.5) * BIN - 1  # the outermost bins reach to ∞
    below = special.ndtr((cuts - centres[..., None]) / DEVIATION)  # [CURVE, 2, 255]
    ends = np.zeros((CURVE, 2, 1)), np.ones((CURVE, 2, 1))
    shares = np.diff(np.concatenate([ends[0], below, ends[1]], axis=-1), axis=-1)
    return shares[:, 0].T @ shares[:, 1] / CURVE


@functools.cache
def entropy() -> float:
    """Return the bits per dimension that no code goes below."""
    chance = law()
    kept = chance[chance > 0]
    return float(-np.sum(kept * np.log2(kept)) / 2)


class Judge:
    """Scores made points by their energy distance to those of the test split."""

    @functools.cached_property
    def _real(self):
        data = dataset("test")
        return data.fetch(np.arange(len(data)))["image"].astype(np.float64)

    def distance(self, made: np.ndarray) -> float:
        """Return the energy distance of points [n, 2], stored as uint8."""
        return mixture.energy_distance(made * BIN - 1, self._real[: len(made)])


# ---- the network ---------------------------------------------------------------------


@functools.cache
def network(*, learned: bool, scale_shift: bool) -> custom.OwnNetwork:
    """Return a residual network of dense layers that knows t.

    Args:
        learned: whether it gives a variance too.
        scale_shift: whether the time embedding scales and shifts normalised activations
            (AdaGN), or is added to them.
    """
    out = 4 if learned else 2

    def init(key):
        names = [f"layer_{n}" for n in range(HIDDEN)]
        drawn = iter(jax.random.split(key, 2 + 2 * HIDDEN))

        def dense(inputs, outputs):
            shape = inputs, outputs
            kernel = jax.random.normal(next(drawn), shape, jnp.float32)
            return {
                "kernel": kernel / np.sqrt(inputs).astype(np.float32),
                "bias": jnp.zeros(outputs, jnp.float32),
            }

        told = 2 * WIDTH if scale_shift else WIDTH
        layers = {
            name: {"dense": dense(WIDTH, WIDTH), "time": dense(WIDTH, told)}
            for name in names
        }
        last = jnp.zeros((WIDTH, out), jnp.float32)
        return {
            "in": dense(2 + 4 * FREQUENCIES, WIDTH),
            "time": dense(2 * FREQUENCIES, WIDTH),
            "out": {"kernel": last, "bias": jnp.zeros(out, jnp.float32)},
            **layers,
        }

    def apply(params, x, t, labels, dropout_keys):
        del labels, dropout_keys
        embedding = jax.nn.silu(_dense(params["time"], _time_features(t)))
        hidden = _dense(params["in"], _place_features(x))
        for n in range(HIDDEN):
            layer = params[f"layer_{n}"]
            told = _dense(layer["time"], embedding)
            change = _normalised(hidden)
            if scale_shift:
                scale, shift = jnp.split(told, 2, axis=-1)
                change = change * (1 + scale) + shift
            else:
                change = _normalised(hidden + told)
            hidden = hidden + _dense(layer["dense"], jax.nn.silu(change))
        return _dense(params["out"], jax.nn.silu(_normalised(hidden)))

    return custom.own_network(init, apply)


def _dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def _normalised(x):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)


def _time_features(t):
    rates = jnp.exp(-np.log(10_000.0) * jnp.arange(FREQUENCIES) / FREQUENCIES)
    phase = t[:, None].astype(jnp.float32) * 5 * rates  # T = 200 seen as 1,000
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


def _place_features(x):
    rates = jnp.arange(1, FREQUENCIES + 1, dtype=jnp.float32) * (np.pi / 2)
    phase = (x[..., None] * rates).reshape(len(x), -1)
    return jnp.concatenate([x, jnp.sin(phase), jnp.cos(phase)], axis=-1)
