"""The gradients of the convolution against NumPy in float64 and against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddpm_jax.models import convolution, layers
from ddpm_jax.runtime import cost, sharding

NUMBERS = ("NHWC", "HWIO", "NHWC")
SAME = ((1, 1), (1, 1))
CHANNELS = (96, 128)


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def example(size=3, side=16, batch=2, channels=CHANNELS):
    """Return an image and a kernel that are large enough for the product."""
    return arrays((batch, side, side, channels[0]), (size, size, *channels))


def convolve(x, kernel, strides=(1, 1), padding=SAME):
    return convolution.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=NUMBERS
    )


def xla(x, kernel, strides=(1, 1), padding=SAME):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=NUMBERS
    )


def loss_of(function):
    return lambda *args: jnp.sum(jnp.sin(function(*args)))


def gradients(function, *args, **options):
    function = functools.partial(function, **options)
    return jax.jit(jax.grad(loss_of(function), (0, 1)))(*args)


def check(got, wanted, share=1e-5):
    """Check that trees agree up to a share of the largest entry of each leaf."""
    for a, wanted_leaf in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        b = np.asarray(wanted_leaf, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=share * np.abs(b).max())


def numpy_kernel_gradient(x, cotangent, size, padding):
    """Return Σ x[h+i, w+j]·g[h, w] for each entry (i, j) of the kernel."""
    padded = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    _, height, width, _ = cotangent.shape
    return np.array(
        [
            [
                np.einsum(
                    "bhwc,bhwd->cd",
                    padded[:, i : i + height, j : j + width],
                    cotangent.astype(np.float64),
                )
                for j in range(size)
            ]
            for i in range(size)
        ]
    )


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        (3, SAME),
        (1, ((0, 0), (0, 0))),
        (3, ((0, 0), (0, 0))),
        (3, ((0, 1), (2, 0))),
        (3, ((3, 2), (1, 4))),
        (2, ((1, 0), (0, 1))),
        (5, ((2, 2), (2, 2))),
    ],
)
def test_the_kernels_gradient_is_the_sum_over_all_pixels(size, padding):
    x, kernel = example(size)
    output, pull = jax.vjp(lambda w: convolve(x, w, padding=padding), kernel)
    (cotangent,) = arrays(output.shape, seed=1)
    wanted = numpy_kernel_gradient(x, cotangent, size, padding)
    check(pull(cotangent), (wanted,), share=2e-6)


def test_the_images_gradient_and_the_value_are_those_of_xla():
    x, kernel = example()
    np.testing.assert_array_equal(convolve(x, kernel), xla(x, kernel))
    check(gradients(convolve, x, kernel), gradients(xla, x, kernel))


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        (*example(), {"strides": (2, 2)}),
        (*example(), {"strides": (2, 2), "padding": ((0, 1), (0, 1))}),
        (*example(channels=(64, 128)), {}),
        (*example(channels=(96, 6)), {}),
        (*example(side=8), {}),
        (*(array.astype(jnp.bfloat16) for array in example()), {}),
    ],
)
def test_where_the_product_gains_nothing_the_program_is_xlas(x, kernel, options):
    def text(function):
        function = functools.partial(function, **options)
        return jax.jit(jax.grad(loss_of(function), (0, 1))).lower(x, kernel).as_text()

    assert text(convolve) == text(xla)


def products(platform, function, *args):
    """Return the number of convolutions and of matrix products lowered to."""
    traced = jax.jit(jax.grad(loss_of(function), (0, 1))).trace(*args)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


def test_only_cpus_get_the_product():
    x, kernel = example()
    assert products("cpu", convolve, x, kernel) == (2, 1)
    for platform in ("tpu", "cuda", "rocm"):
        assert products(platform, convolve, x, kernel) == (3, 0)


def test_the_networks_use_it():
    conv = layers.conv(*CHANNELS, dtype=jnp.float32, rngs=nnx.Rngs(0))
    graph, state = nnx.split(conv)
    x, _ = example()

    def apply(x, state):
        return nnx.merge(graph, state)(x)

    assert products("cpu", apply, x, state) == (2, 1)


def test_the_backward_pass_keeps_the_image_and_no_copies_of_it():
    x, kernel = example()
    _, pull = jax.vjp(convolve, x, kernel)
    kept = sum(leaf.size for leaf in jax.tree.leaves(pull))
    assert kept <= x.size + kernel.size + 1


def test_eight_devices_share_the_batch_and_sum_the_gradient_once():
    mesh = sharding.make_mesh()
    x, kernel = example(batch=8)
    on_mesh = (
        jax.device_put(x, sharding.batch_sharding(mesh)),
        jax.device_put(kernel, sharding.replicated(mesh)),
    )
    gradient = jax.jit(jax.grad(loss_of(convolve), 1)).lower(*on_mesh).compile()
    check(gradient(*on_mesh), gradients(xla, x, kernel)[1])
    traffic = cost.collective_bytes(gradient.as_text())
    assert traffic == {"all-reduce": kernel.nbytes}


@pytest.mark.parametrize("policy", [None, jax.checkpoint_policies.dots_saveable])
def test_rematerialised(policy):
    x, kernel = example()
    again = jax.checkpoint(loss_of(convolve), policy=policy)
    got = jax.jit(jax.grad(again, (0, 1)))(x, kernel)
    check(got, gradients(xla, x, kernel))


def test_mapped_over_images_and_kernels():
    (kernels,) = arrays((3, 3, 3, *CHANNELS))
    x, _ = example()

    def mapped(function, x, kernels):
        return jax.vmap(function, in_axes=(None, 0))(x, kernels)

    got = gradients(functools.partial(mapped, convolve), x, kernels)
    check(got, gradients(functools.partial(mapped, xla), x, kernels))


def test_forward_mode():
    x, kernel = example()
    tangents = tuple(arrays(x.shape, kernel.shape, seed=1))
    got = jax.jit(lambda *args: jax.jvp(convolve, (x, kernel), args))(*tangents)
    check(got, jax.jvp(xla, (x, kernel), tangents))


def test_the_gradient_of_a_gradient():
    x, kernel = example()
    directions = arrays(x.shape, kernel.shape, seed=1)

    def slope(function, *args):
        gradient = jax.grad(loss_of(function), (0, 1))(*args)
        return sum(map(jnp.vdot, gradient, directions))

    got = jax.jit(jax.grad(functools.partial(slope, convolve), (0, 1)))(x, kernel)
    wanted = jax.jit(jax.grad(functools.partial(slope, xla), (0, 1)))(x, kernel)
    check(got, wanted)
