"""The image network of the 2015 paper: convolutions at several scales, a dense pathway.

    layer:    y = softplus(Σ_s up_s(conv_s(pool_s(x))))      s = 0 … scales−1
    dense:    y = readout(tanh(… tanh(x)))                   of all pixels at once
    pixel:    tanh 1×1 convolutions of both → coefficients z_j [J, outputs]
    time:     z = Σ_j g_j(t) z_j, see `stepwise.bumps`

pool_s is the mean over squares of side 2^s, up_s repeats pixels. The paper's text is
followed; its code takes leaky rectifiers, inside every scale, and bumps half as wide.
The weights of the features that both pathways give are those of 1×1 convolutions.

Reference: Sohl-Dickstein et al. 2015, App. D.2.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from ddpm_jax.core import errors
from ddpm_jax.models import functional, stepwise

PIXEL_LAYERS = 2  # of 1×1 convolutions
DENSE_LAYERS = 2
DENSE_FACTOR = 4  # units of a dense layer for a feature of a convolution


def multiscale(
    *,
    shape: tuple[int, ...],
    width: int,
    layers: int,
    scales: int,
    dense: int,
    outputs: int,
    num_steps: int,
    readouts: int,
) -> functional.Network:
    """Return an image network, x [B, H, W, C] → z [B, H, W, outputs·C].

    Args:
        shape: (H, W, C) of the images.
        width: features of a convolution, and units of the dense pathway for a pixel's
            worth of it.
        layers: of multi-scale convolutions.
        scales: maps of each, halved 0 … scales−1 times.
        dense: outputs of the dense pathway for a pixel; 0 for no dense pathway.
        outputs: for each channel.
        num_steps: T.
        readouts: J, the bumps of time.

    Raises:
        Refusal: no image, sides that scales do not divide, or too few readouts.
    """
    if len(shape) != 3:
        raise errors.Refusal(
            f"network='multiscale' takes images [height, width, channels], and one "
            f"example is {list(shape)}: choose mlp or rbf"
        )
    height, breadth, channels = shape
    factor = 2 ** (scales - 1)
    if height % factor or breadth % factor:
        raise errors.Refusal(
            f"scales={scales} halves {height}x{breadth} images {scales - 1} times, "
            f"which 2^{scales - 1} does not divide: choose fewer"
        )
    if not 2 <= readouts <= num_steps:
        raise errors.Refusal(
            f"readouts={readouts} of network='multiscale': choose 2 … {num_steps} "
            "bumps of time, such as 10"
        )
    total = outputs * channels
    shapes = _shapes(shape, width, layers, scales, dense, readouts * total)

    def forward(params, x, t, condition, *, dropout_keys=None):
        del condition, dropout_keys
        h = x
        for k in range(layers):
            h = _multiscale_layer(params[f"conv_{k}"], h, scales)
        features = [h]
        if dense:
            features.append(_dense(params, x, dense))
        h = jnp.concatenate(features, axis=-1)
        for k in range(PIXEL_LAYERS):
            h = jnp.tanh(_affine(params[f"pixel_{k}"], h))
        z = _affine(params["readout"], h)
        z = z.reshape(*z.shape[:-1], readouts, total)
        g = stepwise.bumps(t, num_steps, readouts)
        return jnp.einsum("bj,bhwjo->bhwo", g, z)

    return functional.Network(
        shapes=stepwise.structs(shapes),
        forward=forward,
        initialise=stepwise.initialise,
    )


def shaped(network: functional.Network, shape: tuple[int, ...]) -> functional.Network:
    """Return a network whose output is [B, *shape], for one that gives [B, outputs]."""

    def forward(params, x, *inputs, **options):
        output = network.forward(params, x, *inputs, **options)
        return output.reshape(x.shape[0], *shape)

    return dataclasses.replace(network, forward=forward)


def _shapes(shape, width, layers, scales, dense, readout):
    """Return the shapes of the parameters, nested."""
    height, breadth, channels = shape
    inputs = [channels, *[width] * (layers - 1)]
    shapes = {
        f"conv_{k}": {
            "bias": (width,),
            **{f"scale_{s}": {"kernel": (3, 3, c, width)} for s in range(scales)},
        }
        for k, c in enumerate(inputs)
    }
    size = math.prod(shape)
    if dense:
        for k in range(DENSE_LAYERS):
            units = (size if k == 0 else DENSE_FACTOR * width, DENSE_FACTOR * width)
            shapes[f"dense_{k}"] = {"kernel": units, "bias": units[1:]}
        last = (DENSE_FACTOR * width, height * breadth * dense)
        shapes["dense_out"] = {"kernel": last, "bias": last[1:]}
    for k in range(PIXEL_LAYERS):
        units = (width + dense if k == 0 else width, width)
        shapes[f"pixel_{k}"] = {"kernel": units, "bias": units[1:]}
    shapes["readout"] = {"kernel": (width, readout), "bias": (readout,)}
    return shapes


def _multiscale_layer(params, x, scales):
    total = params["bias"]
    for s in range(scales):
        pooled = _pool(x, 2**s)
        made = jax.lax.conv_general_dilated(
            pooled,
            params[f"scale_{s}"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        total = total + jnp.repeat(jnp.repeat(made, 2**s, axis=1), 2**s, axis=2)
    return jax.nn.softplus(total)


def _pool(x, side):
    b, h, w, c = x.shape
    return x.reshape(b, h // side, side, w // side, side, c).mean(axis=(2, 4))


def _dense(params, x, dense):
    h = x.reshape(x.shape[0], -1)
    for k in range(DENSE_LAYERS):
        h = jnp.tanh(_affine(params[f"dense_{k}"], h))
    return _affine(params["dense_out"], h).reshape(*x.shape[:-1], dense)


def _affine(layer, x):
    return x @ layer["kernel"] + layer["bias"]
