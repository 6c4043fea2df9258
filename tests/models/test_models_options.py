"""The U-Net's dialects: each option against what it must be equal to."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_unet import batch, compiled, equations, example_keys, random_params, tiny

from ddpm_jax.models import functional

DDPM = {
    "num_heads": 1,
    "scale_shift": False,
    "sinusoid": "sin_cos",
    "sinusoid_shift": 1,
    "norm_epsilon": 1e-6,
    "downsample_padding": "end",
    "qkv_order": "new",
    "attention_scale": "product",
}


def paths(net):
    return set(functional.by_path(net.shapes))


def assert_same_function(one, params, other, other_params):
    x, t = batch()
    got = compiled(one.apply)(params, x, t)
    wanted = compiled(other.apply)(other_params, x, t)
    assert np.std(wanted) > 1e-2
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------- dialects


def test_sines_first_is_the_other_half_of_the_first_layer():
    sines, cosines = tiny(sinusoid="sin_cos"), tiny()
    params = random_params(sines)
    turned = jax.tree.map(lambda leaf: leaf, params)
    dense = turned["time_embedding"]["dense_1"]
    dense["kernel"] = jnp.roll(dense["kernel"], 4, axis=0)  # 8 inputs, 4 of a kind
    assert_same_function(sines, params, cosines, turned)


def test_pooling_is_a_convolution_of_quarters():
    # From the pixel at (2i, 2j) on, which is where windows start if only ends are
    # padded. A convolution after doubling that changes nothing is a single 1.
    pooled = tiny(resample="pool")
    convolved = tiny(resample="conv", downsample_padding="end")
    assert paths(pooled) < paths(convolved)
    assert paths(convolved) - paths(pooled) == {
        "down/0/resample/conv/kernel",
        "down/0/resample/conv/bias",
        "up/1/resample/conv/kernel",
        "up/1/resample/conv/bias",
    }

    params = random_params(pooled)
    quarters, one = np.zeros((3, 3, 8, 8)), np.zeros((3, 3, 16, 16))
    quarters[:2, :2] = np.eye(8) / 4
    one[1, 1] = np.eye(16)
    filled = jax.tree.map(lambda leaf: leaf, params)
    filled["down"]["0"]["resample"] = _conv(quarters)
    filled["up"]["1"]["resample"] = _conv(one)
    assert_same_function(pooled, params, convolved, filled)


def _conv(kernel):
    kernel = jnp.asarray(kernel, jnp.float32)
    return {"conv": {"kernel": kernel, "bias": jnp.zeros(kernel.shape[-1])}}


def test_no_attention_in_the_middle_is_one_that_adds_nothing():
    without, normed = tiny(middle_attention="none"), tiny()
    params = random_params(normed)
    attention = params["middle"]["attention"]
    attention["proj_out"] = jax.tree.map(jnp.zeros_like, attention["proj_out"])
    bare = {**params, "middle": {**params["middle"]}}
    del bare["middle"]["attention"]
    assert_same_function(without, bare, normed, params)


def test_plain_attention_in_the_middle_lacks_its_norm():
    missing = paths(tiny()) - paths(tiny(middle_attention="plain"))
    norm = "middle/attention/norm"
    assert missing == {f"{norm}/scale", f"{norm}/bias"}


def test_without_middle_attention_its_heads_need_not_fit():
    widths = {"channel_mult": (1, 1.5), "attention_resolutions": (8,)}
    tiny(**widths, num_heads=8, middle_attention="none")


def test_every_norm_has_the_epsilon():
    epsilon = 0.37
    net = tiny(norm_epsilon=epsilon)
    x, t = batch()
    jaxpr = jax.make_jaxpr(net.apply)(net.shapes, x, t)
    added = [
        float(var.val)
        for eqn in equations(jaxpr)
        if eqn.primitive.name == "add"
        for var in eqn.invars
        if hasattr(var, "val") and np.ndim(var.val) == 0
    ]
    norms = sum(path.endswith("/scale") for path in paths(net))
    assert added.count(np.float32(epsilon)) == norms


# --------------------------------------------------------------------- super-resolution


def test_the_small_image_is_seen_after_the_noisy_one():
    net, six = tiny(low_res=True), tiny(in_channels=6)
    chex.assert_trees_all_equal_shapes(net.shapes, six.shapes)
    params, (x, t) = random_params(net), batch()
    small = batch(seed=2)[0]  # of full size: there is nothing to stretch
    got = compiled(net.apply)(params, x, t, {"low_res": small})
    wanted = compiled(six.apply)(params, jnp.concatenate([x, small], axis=-1), t)
    np.testing.assert_array_equal(got, wanted)


def test_a_small_image_acts_like_its_stretched_self():
    net = tiny(low_res=True)
    params, (x, t) = random_params(net), batch()
    small = jnp.broadcast_to(jnp.array([0.0, 1, 1, 1])[:, None], (4, 2, 4, 3))
    row = jnp.array([0.0, 0.25, 0.75, 1, 1, 1, 1, 1])
    apply = compiled(net.apply)
    got = apply(params, x, t, {"low_res": small})
    wanted = apply(params, x, t, {"low_res": jnp.broadcast_to(row[:, None], x.shape)})
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------- rematerialisation

REMAT_KINDS = ("blocks", "attention", "dots")
SMALL = {"image_size": (4, 4), "channel_mult": (1,), "dropout": 0.3}


def gradient(net):
    (x, t), keys = batch(2, (4, 4, 3)), example_keys(2)

    def loss(params):
        return jnp.mean(net.apply(params, x, t, dropout_keys=keys) ** 2)

    return jax.grad(loss)


@pytest.fixture(scope="module")
def plain_gradient():
    """A network's parameters and their gradient without rematerialisation."""
    net = tiny(**SMALL)
    params = random_params(net)
    plain = compiled(gradient(net))(params)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(plain))
    return params, plain


@pytest.mark.parametrize("remat", ["blocks", "dots"])
def test_remat_changes_no_gradient(plain_gradient, remat):
    params, plain = plain_gradient
    again = compiled(gradient(tiny(**SMALL, remat=remat)))(params)
    chex.assert_trees_all_close(again, plain, rtol=1e-3, atol=1e-5)


@functools.cache
def recomputed(remat):
    """How many convolutions and exponentials the gradient's program has."""
    net = tiny(**SMALL, remat=remat)
    jaxpr = jax.make_jaxpr(gradient(net))(net.shapes)
    names = [eqn.primitive.name for eqn in equations(jaxpr)]
    return {name: names.count(name) for name in ("conv_general_dilated", "exp")}


def test_remat_recomputes_what_it_says():
    program = {remat: recomputed(remat) for remat in ("none", *REMAT_KINDS)}
    convs = {remat: counts["conv_general_dilated"] for remat, counts in program.items()}
    softmaxes = {remat: counts["exp"] for remat, counts in program.items()}
    # Five blocks; within one, only the first convolution is of use to the gradient.
    assert convs["attention"] == convs["dots"] == convs["none"]
    assert convs["blocks"] >= convs["none"] + 5
    # One attention on the way down, one in the middle, two on the way up.
    assert softmaxes["attention"] == softmaxes["none"] + 4
    assert softmaxes["blocks"] == softmaxes["dots"] == softmaxes["none"] + 4


def test_remat_may_be_true_or_false():
    assert recomputed(True) == recomputed("blocks")
    assert recomputed(False) == recomputed("none")


# ----------------------------------------------------------------------- half precision


def test_ddpm_in_bfloat16_stays_near_float32():
    params, (x, t) = random_params(tiny(**DDPM)), batch()
    half, full = (
        np.asarray(compiled(tiny(**DDPM, dtype=dtype).apply)(params, x, t))
        for dtype in ("bfloat16", "float32")
    )
    error = np.abs(half - full).max()
    assert 1e-4 * full.std() < error < 0.2 * full.std()


@pytest.mark.parametrize("changes", [{}, DDPM, {"low_res": True, "resample": "pool"}])
def test_bfloat16_ends_where_norms_softmax_embeddings_and_head_begin(changes):
    net = tiny(dtype="bfloat16", num_classes=5, **changes)
    x, t = batch()
    condition = {"label": jnp.zeros(4, jnp.int32)}
    if changes.get("low_res"):
        condition["low_res"] = x[:, ::2, ::2]
    jaxpr = jax.make_jaxpr(net.apply)(net.shapes, x, t, condition)
    seen = {}
    for eqn in equations(jaxpr):
        dtypes = {str(var.aval.dtype) for var in eqn.invars}
        seen.setdefault(eqn.primitive.name, []).append(dtypes)
    convolutions = seen["conv_general_dilated"]
    assert convolutions[-1] == {"float32"}  # the head
    assert all(dtypes == {"bfloat16"} for dtypes in convolutions[:-1])
    # Float32 products: two of the time embedding, one for each of eight blocks, and
    # two, one for each side, that stretch a small image.
    stretching = 2 if changes.get("low_res") else 0
    assert seen["dot_general"].count({"float32"}) == 2 + 8 + stretching
    for exact in ("exp", "rsqrt", "cos", "sin"):
        assert all(dtypes == {"float32"} for dtypes in seen[exact]), exact
