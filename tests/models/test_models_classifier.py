"""The classifier: its pools against NumPy, its start, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks
import pytest
from small_unet import batch, compiled, random_params

from ddpm_jax.core import errors
from ddpm_jax.models import classifier, functional

TINY = {
    "image_size": (8, 8),
    "in_channels": 3,
    "num_classes": 5,
    "channels": 8,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention_resolutions": (4,),
    "head_channels": 8,
    "norm_groups": 4,
}
POOLS = ("attention", "adaptive", "spatial", "spatial_v2")


def tiny(**changes):
    return classifier.classifier(**{**TINY, **changes})


def drawn(pool):
    """A network, its parameters, and these by path in float64."""
    net = tiny(pool=pool)
    params = random_params(net)
    return (
        net,
        params,
        {k: np.float64(v) for k, v in functional.by_path(params).items()},
    )


def numpy_logits(pool, p, maps):
    """The logits of one image from the encoder's maps, each [h, w, C]."""
    last, means = maps[-1], np.concatenate([m.mean(axis=(0, 1)) for m in maps])

    def dense(name, h):
        return h @ p[f"pool/{name}/kernel"] + p[f"pool/{name}/bias"]

    def norm(h):
        return numpy_blocks.group_norm(h, 4, p["pool/norm/scale"], p["pool/norm/bias"])

    silu = numpy_blocks.silu
    match pool:
        case "adaptive":
            return dense("proj_out", silu(norm(last)).mean(axis=(0, 1)))
        case "spatial":
            return dense("dense_2", np.maximum(dense("dense_1", means), 0.0))
        case "spatial_v2":
            return dense("dense_2", silu(norm(dense("dense_1", means))))
    pixels = silu(norm(last)).reshape(-1, last.shape[-1])
    tokens = np.concatenate([pixels.mean(axis=0)[None], pixels])
    qkv = dense("qkv", tokens + p["pool/positional_embedding"])
    heads = []
    for start in range(0, last.shape[-1], 8):  # 8 channels a head
        q, k, v = (qkv[:, i * 16 + start : i * 16 + start + 8] for i in range(3))
        weights = np.exp(q[0] @ k.T / np.sqrt(8))  # the mean's alone
        heads.append(weights @ v / weights.sum())
    return dense("proj_out", np.concatenate(heads))


@pytest.mark.parametrize("pool", POOLS)
def test_pools(pool):
    net, params, p = drawn(pool)
    seen = {}

    # The encoder's maps are what the pool is called with.
    original = classifier.POOLS[pool].__call__

    def spy(self, maps):
        seen["maps"] = maps
        return original(self, maps)

    x, t = batch(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier.POOLS[pool], "__call__", spy)
        got, maps = jax.jit(lambda: (net.apply(params, x, t), seen["maps"]))()
    # conv_in, a block, a downsampling, a block, the middle.
    shapes = [(8, 8, 8)] * 2 + [(4, 4, 8)] + [(4, 4, 16)] * 2
    assert [m.shape[1:] for m in maps] == shapes
    for b in range(2):
        wanted = numpy_logits(pool, p, [np.float64(m[b]) for m in maps])
        np.testing.assert_allclose(got[b], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pool", ["adaptive", "attention"])
def test_only_the_adaptive_pool_starts_at_zero(pool):
    net = tiny(pool=pool)
    x, t = batch()
    logits = compiled(net.apply)(net.init(jax.random.key(0)), x, t)
    assert logits.shape == (4, 5)
    assert np.any(logits != 0) == (pool == "attention")


def test_positions_start_as_normal_numbers_of_the_published_size():
    net = tiny(image_size=(64, 64), attention_resolutions=(32,))
    kind, scale = net.initialise(
        "pool/positional_embedding", functional.by_path(net.shapes)
    )
    assert net.shapes["pool"]["positional_embedding"].shape == (32 * 32 + 1, 16)
    assert (kind, scale) == ("normal", 1 / 4)


def test_the_pool_is_float32_whatever_the_trunk():
    x, t = batch()
    params = random_params(tiny())
    half, full = (
        np.asarray(compiled(tiny(dtype=dtype).apply)(params, x, t))
        for dtype in ("bfloat16", "float32")
    )
    assert half.dtype == np.float32
    error = np.abs(half - full).max()
    assert 1e-5 * full.std() < error < 0.2 * full.std()


def test_images_need_not_be_square():
    net = tiny(image_size=(8, 12))
    assert net.shapes["pool"]["positional_embedding"].shape == (4 * 6 + 1, 16)
    x, t = batch(2, (8, 12, 3))
    assert jax.eval_shape(net.apply, net.shapes, x, t).shape == (2, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"pool": "max"},
            "unknown pool 'max': choose one of adaptive, attention",
        ),
        ({"num_classes": 0}, "num_classes is 0: give a whole number of at least 1"),
        ({"image_size": (9, 8)}, "9x8 is not divisible by 2"),
        ({"head_channels": 5}, "head_channels 5 does not divide the 16 channels"),
        ({"remat": "all"}, "unknown remat 'all'"),
        (
            {"channels": 6, "norm_groups": 3, "head_channels": 6, "pool": "spatial_v2"},
            "norm_groups 3 does not divide the 2048 channels of the pool",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(errors.Refusal, match=words):
        tiny(**changes)


def test_labels_are_for_the_caller_to_compare():
    net = tiny()
    x, t = batch()
    with pytest.raises(errors.Refusal, match="reads no condition: leave it out"):
        net.apply(random_params(net), x, t, jnp.zeros(4, jnp.int32))


@pytest.mark.parametrize(
    ("side", "channel_mult", "num_res_blocks", "features"),
    [
        (64, (1, 2, 3, 4), 4, 6528),
        (128, (1, 1, 2, 3, 4), 2, 4352),
        (256, (1, 1, 2, 2, 4, 4), 2, 5504),
        (512, (0.5, 1, 1, 2, 2, 4, 4), 2, 5632),
    ],
)
def test_spatial_pools_see_the_published_features(
    side, channel_mult, num_res_blocks, features
):
    net = classifier.classifier(
        image_size=(side, side),
        in_channels=3,
        num_classes=1000,
        channels=128,
        channel_mult=channel_mult,
        num_res_blocks=num_res_blocks,
        attention_resolutions=(32, 16, 8),
        pool="spatial",
    )
    assert net.shapes["pool"]["dense_1"]["kernel"].shape == (features, 2048)
