"""How parameters are drawn: rules on a parameter's path and on the shapes around it."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

DISTRIBUTIONS = {
    "uniform": lambda key, shape: jax.random.uniform(
        key, shape, jnp.float32, minval=-1.0, maxval=1.0
    ),
    "normal": lambda key, shape: jax.random.normal(key, shape, jnp.float32),
    "constant": lambda key, shape: jnp.ones(shape, jnp.float32),
}


class Draw(NamedTuple):
    """One parameter's distribution: `scale` times a member of `DISTRIBUTIONS`."""

    kind: str
    scale: float


Rule = Callable[[str, Mapping[str, jax.ShapeDtypeStruct]], Draw]
"""`rule(path, shapes by path) → Draw`; paths are joined by slashes."""

ZERO_MODULES = ("conv_2", "proj_out", "conv_out")
"""What closes a residual branch or the network: at first, every block passes its input
through and the output is 0."""


def openai(path: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Draw:
    """Return the distribution of one parameter as PyTorch and the OpenAI code have it.

    Kernels and biases of convolutions and dense layers are uniform in ±1/√fan_in (the
    bias with the fan-in of its kernel), embeddings N(0, 1), norms 1 and 0, and the
    modules named in `ZERO_MODULES` exactly 0.

    Args:
        path: e.g. "middle/block_1/conv_1/bias".
        shapes: the network's shapes by path.

    Raises:
        ValueError: the path ends in a name that has no rule.

    Reference: Improved DDPM (Nichol & Dhariwal 2021), published code.
    """
    module, _, leaf = path.rpartition("/")
    if module.rpartition("/")[2] in ZERO_MODULES:
        return Draw("constant", 0.0)
    if leaf == "embedding":
        return Draw("normal", 1.0)
    if leaf == "scale":
        return Draw("constant", 1.0)
    if leaf == "bias" and f"{module}/scale" in shapes:
        return Draw("constant", 0.0)
    if leaf in ("kernel", "bias"):
        fan_in = math.prod(shapes[f"{module}/kernel"].shape[:-1])
        return Draw("uniform", 1.0 / math.sqrt(fan_in))
    raise ValueError(f"no rule to initialise the parameter {path}")


RULES = {"openai": openai}
