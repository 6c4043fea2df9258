"""How parameters are drawn: rules on a parameter's path and on the shapes around it."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.core import keys

DISTRIBUTIONS = {
    "uniform": lambda key, shape: keys.uniform(key, shape, -1.0, 1.0),
    "normal": keys.normal,
    "constant": lambda key, shape: jnp.ones(shape, jnp.float32),
}


class Draw(NamedTuple):
    """One parameter's distribution: `scale` times a member of `DISTRIBUTIONS`."""

    kind: str
    scale: float


Rule = Callable[[str, Mapping[str, jax.ShapeDtypeStruct]], Draw]
"""`rule(path, shapes by path) → Draw`; paths are joined by slashes."""

CLOSING_MODULES = ("conv_2", "proj_out", "conv_out")
"""What closes a residual branch or the network. Where it starts at 0, every block at
first passes its input through and the output is 0."""


def torch(path: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Draw:
    """Return the distribution of one parameter as PyTorch has it.

    Kernels and biases of convolutions and dense layers are uniform in ±1/√fan_in (the
    bias with the fan-in of its kernel), embeddings N(0, 1), norms 1 and 0.

    Args:
        path: e.g. "middle/block_1/conv_1/bias".
        shapes: the network's shapes by path.

    Raises:
        ValueError: the path ends in a name that has no rule.
    """
    module, _, leaf = path.rpartition("/")
    if leaf in ("kernel", "bias") and f"{module}/kernel" in shapes:
        fan_in = math.prod(shapes[f"{module}/kernel"].shape[:-1])
        return Draw("uniform", 1.0 / math.sqrt(fan_in))
    return _beside_kernels(path, shapes)


def openai(path: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Draw:
    """Return the distribution of one parameter as the OpenAI codes have it.

    That of `torch`, but for the closing modules, which are exactly 0.

    Reference: Improved DDPM (Nichol & Dhariwal 2021), published code.
    """
    if _closes(path, shapes):
        return Draw("constant", 0.0)
    return torch(path, shapes)


def ddpm(path: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Draw:
    """Return the distribution of one parameter as the DDPM code has it.

    Kernels are Glorot-uniform, the closing ones with a variance scale of 1e-10 in place
    of 1; biases are 0.

    Reference: DDPM (Ho et al. 2020), published code.
    """
    module, _, leaf = path.rpartition("/")
    if leaf == "bias":
        return Draw("constant", 0.0)
    if leaf != "kernel":
        return _beside_kernels(path, shapes)
    *area, channels_in, channels_out = shapes[path].shape
    if module.endswith("/qkv"):  # there: three layers from C to C
        channels_out //= 3
    fan_mean = math.prod(area) * (channels_in + channels_out) / 2
    scale = 1e-10 if _closes(path, shapes) else 1.0
    return Draw("uniform", math.sqrt(3.0 * scale / fan_mean))


def _closes(path, shapes):
    parent, _, name = path.rpartition("/")[0].rpartition("/")
    # The projection of an attention pool makes the logits: it closes no branch.
    return name in CLOSING_MODULES and f"{parent}/positional_embedding" not in shapes


def _beside_kernels(path, shapes):
    """Return the distribution of what all codes agree on: embeddings and norms."""
    module, _, leaf = path.rpartition("/")
    if leaf == "embedding":
        return Draw("normal", 1.0)
    if leaf == "relative_bias":
        return Draw("constant", 0.0)
    if leaf == "positional_embedding":
        return Draw("normal", 1.0 / math.sqrt(shapes[path].shape[-1]))
    if leaf == "scale":
        return Draw("constant", 1.0)
    if leaf == "bias" and f"{module}/scale" in shapes:
        return Draw("constant", 0.0)
    raise ValueError(f"no rule to initialise the parameter {path}")


RULES = {"openai": openai, "ddpm": ddpm, "torch": torch}
