"""The Inception network of December 2015, whose features FID is defined on.

Not the Inception v3 of torchvision: it has 1008 classes, its average pools leave the
padding out of the mean, and its last block takes a maximum where the others average.

References: Szegedy et al. 2015 (Inception v3); Heusel et al. 2017 (FID); the published
weights `pt_inception-2015-12-05`, whose names the layers bear.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ddpm_jax.models import functional, initialisation

IMAGE_SIZE = 299
NUM_CLASSES = 1008
SPATIAL_CHANNELS = 7

# TensorFloat-32 would move the features in the third digit on recent GPUs.
PRECISION = jax.lax.Precision.HIGHEST


class Conv(NamedTuple):
    """A convolution with bias and ReLU; the norm is folded into kernel and bias."""

    name: str
    features: int
    size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"


POOLS = {
    "average": lambda x: nnx.avg_pool(
        x, (3, 3), (1, 1), "SAME", count_include_pad=False
    ),
    "maximum": lambda x: nnx.max_pool(x, (3, 3), (1, 1), "SAME"),
    "halve": lambda x: nnx.max_pool(x, (3, 3), (2, 2), "VALID"),
}

# A branch is a sequence of convolutions, names of pools, and pairs of convolutions that
# read the same input; a block is the branches that are put side by side.


def _chain(name, *layers):
    """Number the layers of a branch as the published names do: name_1, name_2, …"""
    if len(layers) == 1:
        return (Conv(name, *layers[0]),)
    return tuple(Conv(f"{name}_{i}", *layer) for i, layer in enumerate(layers, 1))


def _halving(*layers):
    """Let the last of some layers have stride 2 and no padding."""
    return (*layers[:-1], (*layers[-1], 2, "VALID"))


def _block_a(pool):  # 35×35
    return (
        _chain("branch1x1", (64, (1, 1))),
        _chain("branch5x5", (48, (1, 1)), (64, (5, 5))),
        _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
        ("average", *_chain("branch_pool", (pool, (1, 1)))),
    )


def _block_b():  # 35×35 → 17×17
    double = _halving((64, (1, 1)), (96, (3, 3)), (96, (3, 3)))
    return (
        _chain("branch3x3", *_halving((384, (3, 3)))),
        _chain("branch3x3dbl", *double),
        ("halve",),
    )


def _block_c(width):  # 17×17
    rows, columns = (width, (1, 7)), (width, (7, 1))
    return (
        _chain("branch1x1", (192, (1, 1))),
        _chain("branch7x7", (width, (1, 1)), rows, (192, (7, 1))),
        _chain("branch7x7dbl", (width, (1, 1)), columns, rows, columns, (192, (1, 7))),
        ("average", *_chain("branch_pool", (192, (1, 1)))),
    )


def _block_d():  # 17×17 → 8×8
    long = _halving((192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3)))
    return (
        _chain("branch3x3", *_halving((192, (1, 1)), (320, (3, 3)))),
        _chain("branch7x7x3", *long),
        ("halve",),
    )


def _block_e(pool):  # 8×8
    def fork(name):
        return Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))

    return (
        _chain("branch1x1", (320, (1, 1))),
        (Conv("branch3x3_1", 384, (1, 1)), fork("branch3x3_2")),
        (
            *_chain("branch3x3dbl", (448, (1, 1)), (384, (3, 3))),
            fork("branch3x3dbl_3"),
        ),
        (pool, *_chain("branch_pool", (192, (1, 1)))),
    )


STEM = (
    Conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Conv("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    "halve",
    Conv("Conv2d_3b_1x1", 80, (1, 1)),
    Conv("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    "halve",
)
BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("average"),
    "Mixed_7c": _block_e("maximum"),
}
SPATIAL_BLOCK = "Mixed_6d"
"""`mixed_6` in the names of the TensorFlow graph."""


class Inception(nnx.Module):
    """The network as a tree of convolutions that the tables above run."""

    def __init__(self, rngs):
        channels = _add(self, STEM, 3, rngs)
        for name, branches in BLOCKS.items():
            block = nnx.Module()
            widths = [_add(block, steps, channels, rngs) for steps in branches]
            setattr(self, name, block)
            channels = sum(widths)
        self.fc = nnx.Linear(
            channels, NUM_CLASSES, use_bias=False, precision=PRECISION, rngs=rngs
        )

    def __call__(self, x, t=None, condition=None, *, dropout_keys=None):
        del t, condition, dropout_keys  # as `functional.functional` passes them
        x = _run(self, STEM, x)
        for name, branches in BLOCKS.items():
            block = getattr(self, name)
            x = jnp.concatenate([_run(block, steps, x) for steps in branches], axis=-1)
            if name == SPATIAL_BLOCK:  # its first channels are those of branch1x1
                spatial = x[..., :SPATIAL_CHANNELS].reshape(x.shape[0], -1)
        pool = jnp.mean(x, axis=(1, 2))
        return {"pool": pool, "spatial": spatial, "logits": self.fc(pool)}


def _add(module, steps, channels, rngs):
    """Give a module the convolutions of a branch; return the channels that leave it."""
    for step in steps:
        if isinstance(step, str):
            continue
        convs = (step,) if isinstance(step, Conv) else step
        for conv in convs:
            layer = nnx.Conv(
                channels,
                conv.features,
                conv.size,
                strides=conv.stride,
                padding=conv.padding,
                precision=PRECISION,
                rngs=rngs,
            )
            setattr(module, conv.name, layer)
        channels = sum(conv.features for conv in convs)
    return channels


def _run(module, steps, x):
    for step in steps:
        if isinstance(step, str):
            x = POOLS[step](x)
        elif isinstance(step, Conv):
            x = jax.nn.relu(getattr(module, step.name)(x))
        else:
            x = jnp.concatenate([_run(module, (conv,), x) for conv in step], axis=-1)
    return x


@functools.cache
def build() -> functional.Network:
    """Return the network's shapes, its initialisation and its forward function.

    Freshly drawn parameters are good for tests only: FID needs the published ones.
    """
    return functional.functional(Inception, _initialise)


def _initialise(path, shapes):
    """He's rule, which keeps the scale of the features through 94 layers."""
    if path.endswith("/bias"):
        return initialisation.Draw("constant", 0.0)
    fan_in = math.prod(shapes[path].shape[:-1])
    return initialisation.Draw("normal", math.sqrt(2 / fan_in))


def apply(params: functional.Params, x: jax.Array) -> dict[str, jax.Array]:
    """Return all that the metrics read, from one pass.

    Args:
        params: nested dictionary as `build().shapes`.
        x: float32 [B, 299, 299, 3], about −1 … 1, resized as the metric demands.

    Returns:
        float32 "pool" [B, 2048], for FID, KID, precision and recall; "spatial"
        [B, 2023], the first 7 channels of `mixed_6/conv` after its ReLU, row by row,
        for sFID; "logits" [B, 1008], without the bias, for the Inception Score.

    Raises:
        ValueError: `params` is not the tree of this network.
    """
    return build().apply(params, x, None)
