"""Who computes an attention: a table of cases, and the programs that come of it.

There is no GPU here. Where cuDNN's kernel would be taken, JAX's own implementation of
the same function stands in, which has the kernel's arguments.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_unet import compiled, tiny

from ddpm_jax.models import attention, attention_routes

B, N, HEADS, D = 2, 6, 3, 8


@pytest.mark.parametrize(
    ("wanted", "changed"),
    [
        ("cudnn", {}),
        ("cudnn", {"lengths": (4096, 4096)}),
        ("cudnn", {"lengths": (64, 192)}),  # GLIDE's text in front
        ("cudnn", {"width": 128}),
        ("cudnn", {"width": 8}),
        ("einsum", {"backend": "cpu"}),
        ("einsum", {"backend": "tpu"}),
        ("einsum", {"backend": "gpu"}),  # without the kernel
        ("einsum", {"dtype": jnp.float32}),
        ("einsum", {"dtype": jnp.float16}),
        ("einsum", {"lengths": (65, 65)}),  # the classifier's: the mean and 64 pixels
        ("einsum", {"lengths": (64, 65)}),
        ("einsum", {"lengths": (65, 64)}),
        ("einsum", {"width": 136}),
        ("einsum", {"width": 256}),
        ("einsum", {"width": 20}),
        ("einsum", {"masked": True}),
    ],
)
def test_the_route(wanted, changed):
    case = {
        "backend": "cuda",
        "dtype": jnp.bfloat16,
        "lengths": (256, 256),
        "width": 64,
        "masked": False,
    } | changed
    assert attention_routes.route(**case) == wanted
    assert attention_routes.route(**case | {"dtype": np.dtype(case["dtype"])}) == wanted


@pytest.mark.parametrize(
    ("platform", "capability", "wanted"),
    [
        ("cpu", "", "cpu"),
        ("tpu", "", "tpu"),
        ("gpu", "9.0", "cuda"),
        ("gpu", "8.0", "cuda"),
        ("gpu", "10.0", "cuda"),
        ("gpu", "7.5", "gpu"),  # Turing
        ("gpu", "gfx90a", "gpu"),  # AMD
        ("gpu", "", "gpu"),
    ],
)
def test_the_backend_of_a_device(platform, capability, wanted):
    assert attention_routes.backend_of(platform, capability) == wanted


def test_this_processs_backend_is_its_cpu():
    assert attention_routes.backend() == "cpu"


# ---- programs ------------------------------------------------------------------------


def arrays(dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, N, HEADS, D)), dtype) for _ in range(3)]


def program(*, scale="split", platform, dtype=jnp.bfloat16):
    """Return the text of attention and its gradient, lowered for a platform."""

    def total(*qkv):
        return jnp.sum(attention.attend(*qkv, scale=scale).astype(jnp.float32))

    traced = jax.jit(jax.value_and_grad(total, (0, 1, 2))).trace(*arrays(dtype))
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Let this process have a GPU; cosines say that its kernel is in a program."""
    asked = []

    def kernel(q, k, v, *, scale, implementation):
        assert implementation == "cudnn"
        asked.append((q.dtype, q.shape, scale))
        return jnp.cos(q) + k + v

    monkeypatch.setattr(attention_routes, "backend", lambda: "cuda")
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    return asked


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_without_a_gpu_nothing_asks_for_the_kernel(platform, monkeypatch):
    monkeypatch.delattr(jax.nn, "dot_product_attention")
    text = program(platform=platform)
    assert text.count("stablehlo.exponential") == 1
    assert "stablehlo.case" not in text


@pytest.mark.parametrize(
    ("platform", "cosines", "softmaxes"),
    [
        # The kernel's gradient is the stand-in's, a sine; the einsum is run, and run
        # again for its gradient.
        ("cuda", 1, 0),
        ("cpu", 0, 2),
        ("tpu", 0, 2),
        ("rocm", 0, 2),
    ],
)
def test_beside_a_gpu_the_platform_of_the_program_decides(
    platform, cosines, softmaxes, on_a_gpu
):
    text = program(platform=platform)
    assert text.count("stablehlo.cosine") == cosines
    assert text.count("stablehlo.exponential") == softmaxes
    assert on_a_gpu


def test_beside_a_gpu_float32_is_the_same_program_as_without_one(request):
    plain = program(platform="cuda", dtype=jnp.float32)
    asked = request.getfixturevalue("on_a_gpu")
    assert program(platform="cuda", dtype=jnp.float32) == plain
    assert not asked


def test_beside_a_gpu_the_cpus_numbers_are_those_without_one(request):
    def both(*qkv):
        out, pull = jax.vjp(lambda *a: attention.attend(*a, scale="product"), *qkv)
        return out, pull(jnp.ones_like(out))

    plain = compiled(both)(*arrays())
    assert request.getfixturevalue("on_a_gpu") == []
    beside = compiled(functools.partial(both))(*arrays())
    assert request.getfixturevalue("on_a_gpu") != []
    for one, two in zip(*map(jax.tree.leaves, (beside, plain)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("scale", attention.ATTENTION_SCALES)
def test_the_kernel_is_told_the_scale(scale, monkeypatch):
    # JAX's own implementation in the kernel's place, run here as if on a GPU.
    own = jax.nn.dot_product_attention

    def kernel(q, k, v, *, scale, implementation):
        return own(q, k, v, scale=scale, implementation="xla")

    monkeypatch.setattr(attention_routes, "backend", lambda: "cuda")
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    monkeypatch.setattr(
        attention_routes.lax,
        "platform_dependent",
        lambda *args, cuda, default: cuda(*args),
    )
    q, k, v = arrays()
    got = np.float64(compiled(lambda *a: attention.attend(*a, scale=scale))(q, k, v))
    q, k, v = (np.float64(array) for array in (q, k, v))
    logits = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(D)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    wanted = np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(B, N, HEADS * D)
    # bfloat16 has 8 bits: q, k, weights and the result are each rounded once.
    np.testing.assert_allclose(got, wanted, atol=0.03)


# ---- what the einsum keeps for the backward pass -------------------------------------


def maps_kept(remat):
    """Return dtypes of the maps of all pairs of pixels that a backward pass gets."""
    net = tiny(remat=remat)  # 4×4 pixels and 2 heads where attention is
    x = jax.ShapeDtypeStruct((3, 8, 8, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((3,), jnp.int32)

    def pull(params, x, t):
        return jax.vjp(lambda params: net.apply(params, x, t), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(pull, net.shapes, x, t))
    return [leaf.dtype for leaf in kept if leaf.shape == (3, 2, 16, 16)]


@pytest.mark.parametrize(
    ("remat", "keeps"),
    [("none", True), ("dots", True), ("attention", False), ("blocks", False)],
)
def test_rematerialised_attention_keeps_no_map_of_all_pairs(remat, keeps):
    assert bool(maps_kept(remat)) == keeps


@pytest.mark.parametrize("remat", ["none", "dots", "attention"])
def test_beside_a_gpu_its_programs_have_no_map_of_all_pairs(remat, on_a_gpu):
    net = tiny(dtype="bfloat16", remat=remat)  # heads of width 8
    x = jax.ShapeDtypeStruct((3, 8, 8, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((3,), jnp.int32)

    def loss(params, x, t):
        return jnp.mean(net.apply(params, x, t) ** 2)

    traced = jax.jit(jax.grad(loss)).trace(net.shapes, x, t)
    maps = {
        platform: traced.lower(lowering_platforms=(platform,))
        .as_text()
        .count("tensor<3x2x16x16x")
        for platform in ("cuda", "tpu")
    }
    assert maps["cuda"] == 0
    assert maps["tpu"] > 0
    assert on_a_gpu
