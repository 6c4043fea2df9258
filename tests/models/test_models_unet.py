"""The U-Net against published weights, shapes and behaviour."""

import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import openai_names
import pytest

from ddpm_jax.core import errors
from ddpm_jax.models import network, unet

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "networks"

TINY = {
    "image_size": (8, 8),
    "in_channels": 3,
    "out_channels": 3,
    "channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "num_heads": 2,
    "norm_groups": 4,
}


def tiny(**changes):
    return unet.unet(**{**TINY, **changes})


def random_params(net, seed=0):
    """Parameters without zeros: the published start would hide most of the network."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda s: jnp.asarray(rng.normal(0.0, 0.15, s.shape), s.dtype), net.shapes
    )


def batch(size=4, shape=(8, 8, 3), seed=1):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(size, *shape)), jnp.float32)
    return x, jnp.asarray(rng.integers(0, 1000, size), jnp.int32)


def compiled(function):
    """Compile without optimisation: these tests compare results, at tiny sizes."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def plain():
    """The tiny network with random parameters, compiled: (params, apply).

    All tests together trace it twice, for integer and for float timesteps.
    """
    net = tiny()
    return random_params(net), compiled(chex.assert_max_traces(net.apply, n=2))


def example_keys(size=4):
    return jax.vmap(jax.random.key)(jnp.arange(size))


# ------------------------------------------------------------------ published networks

PUBLISHED = {
    "cifar10_uncond_50M_500K": {
        "image_size": (32, 32),
        "channels": 128,
        "channel_mult": (1, 2, 2, 2),
        "num_res_blocks": 3,
        "attention_resolutions": (16, 8),
    },
    "lsun_uncond_100M_1200K_bs128": {
        "image_size": (256, 256),
        "channels": 128,
        "channel_mult": (1, 1, 2, 2, 4, 4),
        "num_res_blocks": 2,
        "attention_resolutions": (16,),
        "num_heads": 1,
        "scale_shift": False,
    },
    "64x64_diffusion": {
        "image_size": (64, 64),
        "channels": 192,
        "channel_mult": (1, 2, 3, 4),
        "num_res_blocks": 3,
        "attention_resolutions": (32, 16, 8),
        "head_channels": 64,
        "num_classes": 1000,
        "resblock_updown": True,
        "qkv_order": "new",
    },
    "512x512_diffusion": {
        "image_size": (512, 512),
        "channels": 256,
        "channel_mult": (0.5, 1, 1, 2, 2, 4, 4),
        "num_res_blocks": 2,
        "attention_resolutions": (32, 16, 8),
        "head_channels": 64,
        "num_classes": 1000,
        "resblock_updown": True,
    },
}

GOLDEN_NETWORKS = {
    "id_cifar_like": {
        "image_size": (32, 32),
        "channels": 32,
        "channel_mult": (1, 2, 2),
        "num_res_blocks": 3,
        "attention_resolutions": (16, 8),
        "num_heads": 4,
    },
    "gd_adm": {
        "image_size": (32, 32),
        "channels": 32,
        "channel_mult": (1, 2, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (32, 16),
        "head_channels": 16,
        "num_classes": 10,
        "resblock_updown": True,
    },
}


def openai_layout(arguments):
    """What `openai_names.openai_key` needs to know of a network."""
    levels = len(arguments["channel_mult"])
    return {
        "levels": levels,
        "num_res_blocks": arguments["num_res_blocks"],
        "attended": [
            arguments["image_size"][0] // 2**level in arguments["attention_resolutions"]
            for level in range(levels)
        ],
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_equal_the_published_checkpoint(name):
    published = json.loads((GOLDEN / "published_tensors.json").read_text())[name]
    arguments = PUBLISHED[name]
    net = unet.unet(in_channels=3, out_channels=6, **arguments)
    layout = openai_layout(arguments)
    ours = {}
    for path, leaf in network.by_path(net.shapes).items():
        key = openai_names.openai_key(path, **layout)
        there = np.empty(published["tensors"][key], np.bool_)
        assert leaf.shape == openai_names.to_ours(there, path).shape, path
        ours[key] = path
    assert ours.keys() == published["tensors"].keys()
    assert network.num_parameters(net.shapes) == published["parameters"]


@pytest.mark.parametrize("name", GOLDEN_NETWORKS)
def test_output_equals_the_published_code(name):
    arguments = GOLDEN_NETWORKS[name]
    net = unet.unet(in_channels=3, out_channels=6, **arguments)
    weights = np.load(GOLDEN / f"{name}_weights.npz")
    layout = openai_layout(arguments)

    def tensor(path, shape):
        path = network.path_name(path)
        key = openai_names.openai_key(path, **layout)
        converted = openai_names.to_ours(weights[key], path)
        assert converted.shape == shape.shape
        return jnp.asarray(converted)

    params = jax.tree_util.tree_map_with_path(tensor, net.shapes)
    golden = np.load(GOLDEN / f"{name}.npz")
    x = jnp.asarray(golden["x"].transpose(0, 2, 3, 1))
    labels = jnp.asarray(golden["y"], jnp.int32) if "y" in golden else None
    got = jax.jit(net.apply)(params, x, jnp.asarray(golden["t"]), labels)
    wanted = golden["out"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)


# ---------------------------------------------------------------------------- behaviour


def test_a_new_network_returns_exactly_zero():
    net = tiny()
    x, t = batch()
    out = compiled(net.apply)(net.init(jax.random.key(0)), x, t)
    np.testing.assert_array_equal(out, np.zeros((4, 8, 8, 3)))


def test_examples_do_not_see_each_other_and_timesteps_matter(plain):
    (params, apply), (x, t) = plain, batch()
    whole = apply(params, x, t)
    assert whole.dtype == jnp.float32
    reverse = apply(params, x[::-1], t[::-1])[::-1]
    np.testing.assert_allclose(reverse, whole, rtol=1e-5, atol=1e-5)
    later = apply(params, x, t.at[0].add(50))
    assert np.abs(later - whole)[0].max() > 1e-2
    np.testing.assert_array_equal(later[1:], whole[1:])


def test_timesteps_may_be_integers_or_floats(plain):
    (params, apply), (x, t) = plain, batch()
    floats = apply(params, x, t.astype(jnp.float32))
    np.testing.assert_allclose(floats, apply(params, x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "out_channels"), [((8, 12, 1), 2), ((12, 4, 4), 4), ((4, 4, 2), 5)]
)
def test_any_channels_and_sides(shape, out_channels):
    net = tiny(
        image_size=shape[:2],
        in_channels=shape[2],
        out_channels=out_channels,
        attention_resolutions=(min(shape[:2]) // 2,),
        resblock_updown=True,
    )
    x, t = batch(1, shape)
    out = jax.eval_shape(net.apply, net.shapes, x, t)
    assert out.shape == (1, *shape[:2], out_channels)
    assert "down/1/attentions/0/qkv/kernel" in network.by_path(net.shapes)


def test_a_transposed_image_is_seen_through_transposed_kernels():
    wide, tall = (
        tiny(image_size=size, attention_resolutions=(4, 2)) for size in ((4, 8), (8, 4))
    )
    params = random_params(wide)
    turned = jax.tree.map(lambda w: w.swapaxes(0, 1) if w.ndim == 4 else w, params)
    x, t = batch(2, (4, 8, 3))
    got = compiled(tall.apply)(turned, x.swapaxes(1, 2), t)
    wanted = compiled(wide.apply)(params, x, t)
    np.testing.assert_allclose(got.swapaxes(1, 2), wanted, rtol=1e-4, atol=1e-4)


def test_labels_act_through_their_row_of_the_embedding():
    net = tiny(num_classes=5)
    params, (x, t) = random_params(net), batch()
    apply = compiled(net.apply)
    labels = jnp.array([0, 1, 4, 4])
    out = apply(params, x, t, labels)
    changed = apply(params, x, t, jnp.array([0, 2, 4, 4]))
    moved = np.abs(changed - out).max(axis=(1, 2, 3))
    assert moved[1] > 1e-2
    np.testing.assert_array_equal(moved[[0, 2, 3]], 0.0)

    rows = params["label_embedding"]["embedding"]
    params["label_embedding"]["embedding"] = rows.at[2].set(rows[1])
    alike = apply(params, x, t, jnp.array([0, 2, 4, 4]))
    np.testing.assert_array_equal(alike, out)


def test_dropout_treats_an_example_alike_in_any_batch():
    net = tiny(dropout=0.5)
    params, (x, t), keys = random_params(net), batch(), example_keys()

    @compiled
    def apply(x, t, keys):
        return net.apply(params, x, t, dropout_keys=keys)

    whole = apply(x, t, keys)
    halves = [apply(x[s], t[s], keys[s]) for s in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(whole, np.concatenate(halves), rtol=1e-4, atol=1e-4)
    other = apply(x, t, keys[::-1])
    assert np.abs(other - whole).max() > 1e-2


def test_dropout_is_off_without_keys(plain):
    (params, apply), (x, t) = plain, batch()
    dropping = compiled(tiny(dropout=0.5).apply)
    np.testing.assert_array_equal(dropping(params, x, t), apply(params, x, t))


@pytest.mark.parametrize("updown", [False, True])
def test_every_res_block_drops_with_a_mask_of_its_own(updown):
    # One block at either level of the encoder, two in the middle, two at either level
    # of the decoder; with `resblock_updown` one more on each way.
    net = tiny(dropout=0.5, resblock_updown=updown)
    x, t = batch(1)
    jaxpr = jax.make_jaxpr(lambda p: net.apply(p, x, t, dropout_keys=example_keys(1)))(
        net.shapes
    )
    folded = [
        int(eqn.invars[1].val)
        for eqn in equations(jaxpr)
        if eqn.primitive.name == "random_fold_in"
    ]
    assert sorted(folded) == list(range(8 + 2 * updown))


def equations(jaxpr):
    """Yield every equation of a jaxpr and of those inside it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def test_remat_changes_no_gradient():
    small = {"image_size": (4, 4), "channel_mult": (1,), "dropout": 0.3}
    nets = [tiny(**small, remat=remat) for remat in (False, True)]
    params = random_params(nets[0])
    (x, t), keys = batch(2, (4, 4, 3)), example_keys(2)

    def gradient(net):
        def loss(params):
            return jnp.mean(net.apply(params, x, t, dropout_keys=keys) ** 2)

        return jax.grad(loss)

    programs = [str(jax.make_jaxpr(gradient(net))(params)) for net in nets]
    assert ["remat" in program or "checkpoint" in program for program in programs] == [
        False,
        True,
    ]
    plain, remat = (compiled(gradient(net))(params) for net in nets)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(plain))
    chex.assert_trees_all_close(remat, plain, rtol=1e-3, atol=1e-5)


def test_bfloat16_trunk_stays_near_float32(plain):
    (params, apply), (x, t) = plain, batch()
    half = tiny(dtype="bfloat16")
    chex.assert_trees_all_equal_shapes_and_dtypes(half.shapes, params)
    got = compiled(half.apply)(params, x, t)
    wanted = np.asarray(apply(params, x, t))
    assert got.dtype == jnp.float32
    error = np.abs(got - wanted).max()
    # bfloat16 has 8 bits: far from float32's rounding, near its values.
    assert 1e-4 * wanted.std() < error < 0.2 * wanted.std()


def test_bfloat16_ends_where_norms_softmax_embeddings_and_head_begin():
    net = tiny(dtype="bfloat16", num_classes=5)
    x, t = batch()
    jaxpr = jax.make_jaxpr(net.apply)(net.shapes, x, t, jnp.zeros(4, jnp.int32))
    seen = {}
    for eqn in equations(jaxpr):
        dtypes = {str(var.aval.dtype) for var in eqn.invars}
        seen.setdefault(eqn.primitive.name, []).append(dtypes)
    convolutions = seen["conv_general_dilated"]
    assert convolutions[-1] == {"float32"}  # the head
    assert all(dtypes == {"bfloat16"} for dtypes in convolutions[:-1])
    # Float32 products: two of the time embedding, one for each of eight blocks.
    assert seen["dot_general"].count({"float32"}) == 2 + 8
    for exact in ("exp", "rsqrt", "cos", "sin"):
        assert all(dtypes == {"float32"} for dtypes in seen[exact]), exact


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_size": (30, 30), "channel_mult": (1, 1, 2, 2)},
            r"image size 30x30 is not divisible by 8 \(3 downsamplings\): use 24 or 32",
        ),
        ({"image_size": (9, 8)}, "9x8 is not divisible by 2 .*: use 8x8 or 10x8"),
        ({"image_size": (1, 1)}, r"1x1 is not divisible by 2 .*: use 2, or fewer"),
        ({"image_size": (0, 8)}, "image size 0x8 has no pixels"),
        ({"num_heads": 3}, "num_heads 3 does not divide the 16 channels of level 1"),
        ({"num_heads": 3}, "use 1, 2, 4, 8 or 16"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"head_channels": 5}, "head_channels 5 does not divide the 16 channels of"),
        (
            {"num_heads": 16, "attention_resolutions": (8,)},
            "num_heads 16 does not divide the 8 channels of level 0, .* 1, 2, 4 or 8",
        ),
        ({"norm_groups": 32}, "norm_groups 32 does not divide the 8 channels of level"),
        ({"norm_groups": 32}, "use 1, 2, 4 or 8"),
        (
            {"attention_resolutions": (4, 16)},
            "attention resolution 16 is not the size of any level: use 8 or 4, or none",
        ),
        ({"dtype": "float16"}, "unknown dtype 'float16': choose one of bfloat16, f"),
        ({"qkv_order": "old"}, "unknown qkv_order 'old': choose one of legacy, new"),
        ({"dropout": 1.0}, r"dropout 1.0 is outside \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout -0.1 is outside \[0, 1\)"),
        ({"channels": 0}, "channels is 0: give a whole number of at least 1"),
        ({"num_res_blocks": 0}, "num_res_blocks is 0"),
        ({"num_res_blocks": 1.5}, "num_res_blocks is 1.5"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"channel_mult": ()}, "channel_mult is empty"),
        ({"channel_mult": (0.1, 1)}, "channel_mult entry 0.1 times 8 channels leaves"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(errors.Refusal, match=words):
        tiny(**changes)


@pytest.mark.parametrize(
    ("num_classes", "arguments", "words"),
    [
        (5, {}, "no labels were given to a network with num_classes 5"),
        (5, {"labels": jnp.zeros(3, jnp.int32)}, r"labels of shape \(3,\) were given"),
        (None, {"labels": jnp.zeros(4, jnp.int32)}, "without label embedding: leave"),
        (None, {"t": jnp.zeros((4, 1))}, r"timesteps have shape \(4, 1\)"),
        (None, {"x": jnp.zeros((4, 8, 8, 1))}, r"\(4, 8, 8, 1\) do not fit .* 8, 8, 3"),
        (None, {"x": jnp.zeros((4, 8, 6, 3))}, r"\(4, 8, 6, 3\) do not fit"),
    ],
)
def test_calls_that_do_not_fit_are_refused(num_classes, arguments, words):
    net = tiny(num_classes=num_classes)
    x, t = batch()
    with pytest.raises(errors.Refusal, match=words):
        jax.eval_shape(
            lambda params: net.apply(params, **{"x": x, "t": t, **arguments}),
            net.shapes,
        )
