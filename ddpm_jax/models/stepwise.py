"""The networks of the 2015 paper for points and sequences: one trunk, a readout a step.

    h = trunk(x)                                   [B, width]
    z = Σ_j g_j(t) (h W_j + b_j)                   [B, outputs]

`rbf` has one hidden layer of normalised radial basis functions, `mlp` several of
sigmoid units. With as many readouts as steps g_j(t) is 1 at j = t and 0 elsewhere, the
paper's own readout for each step. Fewer share steps by the smooth bumps that the paper
has for images: neighbouring steps then learn from each other.

Neither paper nor code gives the parameters' first values; here z starts at 0.

Reference: Sohl-Dickstein et al. 2015, App. D.1.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ddpm_jax.core import errors
from ddpm_jax.models import functional, initialisation

NORMAL_SPAN = 3.0  # standard deviations that most draws of N(0, I) lie in
MOST_AT_ONCE = (
    64  # readouts of which all are made: faster than collecting one's weights
)
RATES = "rates"  # of the parameters: what a chain has learned of its β


def rbf(*, size: int, width: int, outputs: int, num_steps: int, readouts: int = 0):
    """Return a normalised RBF network, x [B, ...] → z [B, outputs].

        h_k = exp(−|x − c_k|² / (2 s_k²)) / Σ_l exp(−|x − c_l|² / (2 s_l²))

    Centres and widths are learned. They start as draws of N(0, I) and at about the
    distance between so many of these.

    Args:
        size: numbers of one state.
        width: hidden units; the paper has 16.
        outputs: of each step.
        num_steps: T.
        readouts: 0 for one a step.
    """
    shapes = {"rbf": {"centre": (width, size), "log_width": (width,)}}
    start = NORMAL_SPAN * width ** (-1 / size)

    def trunk(params, x):
        squares = jnp.sum(jnp.square(x[:, None] - params["rbf"]["centre"]), axis=-1)
        widths = start * jnp.exp(params["rbf"]["log_width"])
        return jax.nn.softmax(-0.5 * squares / jnp.square(widths))

    return _stepwise(shapes, trunk, width, outputs, num_steps, readouts)


def mlp(
    *,
    size: int,
    width: int,
    layers: int,
    outputs: int,
    num_steps: int,
    readouts: int = 0,
):
    """Return a network of sigmoid units, x [B, ...] → z [B, outputs].

    Args:
        size: numbers of one state.
        width: units of a hidden layer; the paper has 50.
        layers: hidden ones; the paper has 3.
        outputs: of each step.
        num_steps: T.
        readouts: 0 for one a step.
    """
    sizes = [size, *[width] * layers]
    shapes = {
        f"layer_{k}": {"kernel": (fan_in, width), "bias": (width,)}
        for k, fan_in in enumerate(sizes[:-1])
    }

    def trunk(params, x):
        for k in range(layers):
            layer = params[f"layer_{k}"]
            x = jax.nn.sigmoid(x @ layer["kernel"] + layer["bias"])
        return x

    return _stepwise(shapes, trunk, width, outputs, num_steps, readouts)


def with_rates(network: functional.Network, num_steps: int) -> functional.Network:
    """Return a network whose parameters hold T numbers of the chain beside its own.

    The network does not read them: the chain does, see `diffusion.learned_rates`.
    """

    def forward(params, *inputs, **options):
        own = {name: tree for name, tree in params.items() if name != RATES}
        return network.forward(own, *inputs, **options)

    def initialise(path, shapes):
        if path.startswith(f"{RATES}/"):
            return initialisation.Draw("constant", 0.0)
        return network.initialise(path, shapes)

    offset = jax.ShapeDtypeStruct((num_steps,), jnp.float32)
    return dataclasses.replace(
        network,
        shapes={**network.shapes, RATES: {"offset": offset}},
        forward=forward,
        initialise=initialise,
    )


def bumps(t, num_steps: int, count: int) -> jax.Array:
    """Return normalised Gaussian bumps over t, [B, count], their sum 1 at every t.

    Centres lie evenly from the first step to the last; the width is their distance, as
    the paper says (its code has half of it).
    """
    centres = jnp.linspace(0.0, num_steps - 1.0, count)
    distance = (num_steps - 1.0) / max(count - 1, 1)
    return jax.nn.softmax(-0.5 * jnp.square((t[:, None] - centres) / distance))


def check_readouts(readouts: int, num_steps: int) -> int:
    """Return how many readouts there are.

    Raises:
        Refusal: fewer than 2, or more than steps.
    """
    if readouts and not 2 <= readouts <= num_steps:
        raise errors.Refusal(
            f"readouts={readouts}: choose 2 … {num_steps}, or 0 for one of each of the "
            f"{num_steps} steps"
        )
    return readouts or num_steps


def initialise(path: str, shapes) -> initialisation.Draw:
    """Return the distribution of a parameter: fan-in scaled, readouts 0."""
    if path.startswith("readout/") or path.endswith(("/bias", "/log_width")):
        return initialisation.Draw("constant", 0.0)
    if path.endswith("/centre"):
        return initialisation.Draw("normal", 1.0)
    fan_in = math.prod(shapes[path].shape[:-1])
    return initialisation.Draw("normal", 1 / math.sqrt(fan_in))


def _stepwise(
    shapes: dict,
    trunk: Callable,
    width: int,
    outputs: int,
    num_steps: int,
    readouts: int,
) -> functional.Network:
    """Return the network of a trunk (params, x [B, size]) → h [B, width]."""
    count = check_readouts(readouts, num_steps)
    shapes = {
        **shapes,
        "readout": {"kernel": (count, width, outputs), "bias": (count, outputs)},
    }

    def forward(params, x, t, condition, *, dropout_keys=None):
        del condition, dropout_keys
        h = trunk(params, x.reshape(x.shape[0], -1))
        readout = params["readout"]
        if count == num_steps > MOST_AT_ONCE:
            z = jnp.einsum("bh,bho->bo", h, readout["kernel"][t])
            return z + readout["bias"][t]
        z = jnp.einsum("bh,jho->bjo", h, readout["kernel"]) + readout["bias"]
        if count == num_steps:
            return jnp.take_along_axis(z, t[:, None, None], axis=1)[:, 0]
        return jnp.einsum("bj,bjo->bo", bumps(t, num_steps, count), z)

    return functional.Network(
        shapes=structs(shapes), forward=forward, initialise=initialise
    )


def structs(shapes: dict | Sequence[int]):
    """Return nested shapes as nested `jax.ShapeDtypeStruct`, float32."""
    if isinstance(shapes, dict):
        return {name: structs(value) for name, value in shapes.items()}
    return jax.ShapeDtypeStruct(tuple(shapes), jnp.float32)
