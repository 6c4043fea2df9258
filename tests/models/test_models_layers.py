"""Each block against NumPy, float32 against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_blocks
import pytest
from flax import nnx
from small_unet import compiled

from ddpm_jax.models import attention, functional, layers

RNG = np.random.default_rng(0)


def randomised(make):
    """Make a module of random parameters; return it, compiled, and them by path.

    Its own initial values are never drawn, for each shape is a program.
    """
    graph, state = nnx.split(nnx.eval_shape(make))
    pure = jax.tree.map(
        lambda leaf: RNG.normal(0.0, 0.4, leaf.shape).astype(np.float32),
        nnx.to_pure_dict(state),
    )
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, pure))
    by_path = {k: np.float64(v) for k, v in functional.by_path(pure).items()}
    block = nnx.merge(graph, state)
    return compiled(lambda x, embedding: block(x, embedding, None)), by_path


def norm(channels):
    return layers.GroupNorm(channels, 4, epsilon=1e-5, rngs=nnx.Rngs(0))


def images(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def assert_close(got, wanted, tolerance=1e-4):
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def test_timestep_embedding_has_the_published_numbers():
    # t = 10, dimension 8, of the published code (six digits).
    wanted = [-0.839072, 0.540302, 0.995004, 0.999950]
    wanted += [-0.544021, 0.841471, 0.099833, 0.010000]
    for t in (jnp.array([10]), jnp.array([10.0])):
        got = layers.timestep_embedding(t, 8)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got[0], wanted, atol=1e-6)
    odd = layers.timestep_embedding(jnp.array([10]), 9)
    np.testing.assert_allclose(odd[0], [*wanted, 0.0], atol=1e-6)


def test_timestep_embedding_of_ddpm_has_the_published_numbers():
    wanted = [-0.544021, 0.447671, 0.021543, 0.001, -0.839072, 0.894198, 0.999768, 1.0]
    got = layers.timestep_embedding(jnp.array([10]), 8, order="sin_cos", shift=1)
    np.testing.assert_allclose(got[0], wanted, atol=1e-6)


def test_timestep_embedding_keeps_its_digits_at_large_t():
    got = layers.timestep_embedding(jnp.array([999.0]), 128)[0]
    angles = 999.0 * 10000.0 ** (-np.arange(64) / 64)
    wanted = np.concatenate([np.cos(angles), np.sin(angles)])
    # float32 holds an angle near 999 to 6e-5.
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "scale_shift", "widths"),
    [
        (None, True, (8, 8)),
        (None, False, (8, 16)),
        ("downsample", True, (8, 8)),
        ("upsample", False, (8, 8)),
    ],
)
def test_res_block(name, scale_shift, widths):
    block, p = randomised(
        lambda: layers.ResBlock(
            *widths,
            embedding_channels=12,
            norm=norm,
            scale_shift=scale_shift,
            dropout=0.5,
            dropout_index=0,
            resample=getattr(layers, name) if name else None,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
    )
    resample = {
        None: lambda x: x,
        "downsample": numpy_blocks.halve,
        "upsample": numpy_blocks.double,
    }[name]
    x, embedding = images(2, 4, 6, widths[0]), images(2, 12)
    got = block(x, embedding)
    for b in range(2):
        wanted = numpy_blocks.res_block(
            p,
            np.float64(x[b]),
            np.float64(embedding[b]),
            groups=4,
            scale_shift=scale_shift,
            resample=resample,
        )
        assert_close(got[b], wanted)
    assert ("shortcut/kernel" in p) == (widths[0] != widths[1])


@pytest.mark.parametrize(
    ("order", "scale", "normed"),
    [("legacy", "split", True), ("new", "product", True), ("new", "split", False)],
)
def test_attention(order, scale, normed):
    block, p = randomised(
        lambda: attention.Attention(
            12,
            heads=3,
            norm=norm(12) if normed else None,
            qkv_order=order,
            scale=scale,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
    )
    x = images(2, 3, 4, 12)
    got = block(x, None)
    for b in range(2):
        wanted = numpy_blocks.attention(
            p, np.float64(x[b]), groups=4, heads=3, order=order
        )
        assert_close(got[b], wanted)


def test_attention_is_told_where_a_pixel_is():
    block, p = randomised(
        lambda: attention.Attention(
            12,
            heads=3,
            norm=None,
            qkv_order="new",
            scale="split",
            positions=True,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
    )
    # Centres of 3 rows and 4 columns; half a wave, and a whole one, from edge to edge.
    rows = np.array([-2, 0, 2]) / 3
    columns = np.array([-3, -1, 1, 3]) / 4
    told = np.empty((3, 4, 12))
    for i, j in np.ndindex(3, 4):
        place = np.pi * np.array([rows[i], columns[j]])
        waves = [np.sin(place / 2), np.cos(place / 2), np.sin(place), np.cos(place)]
        told[i, j] = np.concatenate(waves) @ np.float64(p["position/kernel"])
    told += np.float64(p["position/bias"])
    x = images(2, 3, 4, 12)
    got = block(x, None)
    for b in range(2):
        seen = np.float64(x[b]) + told
        mixed = numpy_blocks.attention(p, seen, groups=4, heads=3, order="new") - seen
        assert_close(got[b], np.float64(x[b]) + mixed)


def test_attention_scales_where_it_is_told():
    # d = 16 and q·k = 16·5e37, beyond float32; a quarter of it is not.
    qkv = jnp.full((1, 2, 48), np.sqrt(5e37), jnp.float32)
    q, k, v = attention.split_qkv(qkv, heads=1, order="new")
    split, product = (
        attention.attend(q, k, v, scale=scale) for scale in attention.ATTENTION_SCALES
    )
    np.testing.assert_allclose(split, qkv[..., :16], rtol=1e-6)
    assert np.all(np.isnan(product))


@pytest.mark.parametrize("order", attention.QKV_ORDERS)
def test_splitting_undoes_the_packing(order):
    q, k, v = (images(2, 5, 3, 4) for _ in range(3))  # [B, N, heads, d]
    packed = np.stack([q, k, v], axis=3 if order == "legacy" else 2)
    got = attention.split_qkv(
        jnp.asarray(packed.reshape(2, 5, -1)), heads=3, order=order
    )
    for one, wanted in zip(got, (q, k, v), strict=True):
        np.testing.assert_array_equal(one, wanted)


# Of seven keys: some in both halves, one alone, none.
MASK = np.array([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0], [0] * 7], bool)


def queries_and_keys():
    return images(3, 4, 2, 5), images(3, 7, 2, 5), images(3, 7, 2, 5)


def numpy_attend(q, k, v, mask):
    """One query and one head at a time, over the keys that count, in float64."""
    B, N, heads, d = q.shape
    out = np.zeros((B, N, heads, d))
    for b, n, head in np.ndindex(B, N, heads):
        keys, values = (np.float64(a[b, mask[b], head]) for a in (k, v))
        weights = np.exp(keys @ np.float64(q[b, n, head]) / np.sqrt(d))
        if len(weights):
            out[b, n, head] = weights @ values / weights.sum()
    return out.reshape(B, N, heads * d)


@pytest.mark.parametrize("scale", attention.ATTENTION_SCALES)
@pytest.mark.parametrize("masked", [False, True])
def test_attend_to_more_keys_than_queries(scale, masked):
    q, k, v = queries_and_keys()
    got = attention.attend(q, k, v, scale=scale, mask=MASK if masked else None)
    mask = MASK if masked else np.ones_like(MASK)
    assert_close(got, numpy_attend(q, k, v, mask), 1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_masked_keys_have_no_influence(dtype):
    q, k, v = (jnp.asarray(array, dtype) for array in queries_and_keys())
    other = jnp.asarray(100 * images(3, 7, 2, 5), dtype)
    masked = ~MASK[:, :, None, None]

    @compiled
    def attend_and_gradients(k, v):
        def total(q, k, v):
            out = attention.attend(q, k, v, scale="split", mask=MASK)
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        gradients, out = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(q, k, v)
        return out, *gradients

    plain = attend_and_gradients(k, v)
    changed = attend_and_gradients(
        jnp.where(masked, other, k), jnp.where(masked, -other, v)
    )
    assert plain[0].dtype == dtype
    for one, two in zip(plain, changed, strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.all(np.isfinite(one))
    for gradient in plain[2:]:
        np.testing.assert_array_equal(np.float32(gradient)[~MASK], 0)
    # A query without keys gets zeros.
    np.testing.assert_array_equal(np.float32(plain[0][2]), 0)


@pytest.mark.parametrize(("padding", "pixels"), [("both", (1, 1)), ("end", (0, 1))])
def test_downsampling_convolution_pads_its_sides(padding, pixels):
    block, p = randomised(
        lambda: layers.Downsample(
            4, padding=padding, dtype=jnp.float32, rngs=nnx.Rngs(0)
        ),
    )
    x = images(1, 4, 6, 4)
    wanted = numpy_blocks.conv3x3(
        np.float64(x[0]), p["conv/kernel"], p["conv/bias"], stride=2, padding=pixels
    )
    assert_close(block(x, None)[0], wanted)


def test_upsampling_repeats_pixels_and_convolves():
    block, p = randomised(
        lambda: layers.Upsample(4, dtype=jnp.float32, rngs=nnx.Rngs(0)),
    )
    x = images(1, 2, 3, 4)
    wanted = numpy_blocks.conv3x3(
        numpy_blocks.double(np.float64(x[0])), p["conv/kernel"], p["conv/bias"]
    )
    assert_close(block(x, None)[0], wanted)


@pytest.mark.parametrize("sizes", [((2, 3), (8, 12)), ((3, 4), (5, 10))])
def test_stretching_is_what_pytorch_does(sizes):
    torch = pytest.importorskip("torch")
    small, large = sizes
    x = images(2, *small, 3)
    there = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), large, mode="bilinear"
    )
    got = layers.stretch(jnp.asarray(x), large)
    np.testing.assert_allclose(got, there.numpy().transpose(0, 2, 3, 1), atol=1e-6)


def test_stretching_by_hand():
    # Centres of the large pixels, in small ones: −¼, ¼, ¾, 1¼.
    row = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    got = layers.stretch(row.astype(jnp.bfloat16), (3, 4))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got[0, :, :, 0], [[0.0, 0.25, 0.75, 1.0]] * 3)


def test_group_norm_adds_its_epsilon():
    module = layers.GroupNorm(8, 2, epsilon=0.5, rngs=nnx.Rngs(0))
    x = images(1, 4, 4, 8)
    wanted = numpy_blocks.group_norm(np.float64(x[0]), 2, 1.0, 0.0, epsilon=0.5)
    assert_close(module(x)[0], wanted)


def test_group_norm_survives_a_large_mean_and_half_precision():
    norm = layers.GroupNorm(8, 2, epsilon=1e-5, rngs=nnx.Rngs(0))
    x = (3e4 + 10.0 * images(1, 8, 8, 8)).astype(np.float32)
    wanted = numpy_blocks.group_norm(np.float64(x[0]), 2, 1.0, 0.0)
    np.testing.assert_allclose(norm(x)[0], wanted, atol=2e-3)

    half = jnp.asarray(images(1, 8, 8, 8), jnp.bfloat16)
    got = norm(half)
    assert got.dtype == jnp.bfloat16
    wanted = numpy_blocks.group_norm(np.float64(half[0]), 2, 1.0, 0.0)
    # Only the result is rounded: half a unit of 8 bits.
    np.testing.assert_allclose(np.float64(got[0]), wanted, rtol=2**-8, atol=1e-6)


KEYS = jax.vmap(jax.random.key)(jnp.arange(8))


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    x = jnp.ones((8, 64, 64))
    dropped = np.asarray(layers.dropout(x, 0.3, KEYS, index=0), np.float64)
    assert set(np.unique(dropped.astype(np.float32))) == {0.0, np.float32(1 / 0.7)}
    error = 4 * np.sqrt(0.3 * 0.7 / x.size)
    assert abs((dropped == 0).mean() - 0.3) < error
    assert abs(dropped.mean() - 1.0) < error / 0.7


def test_dropout_masks_belong_to_the_example_and_the_layer():
    x = jnp.ones((8, 16, 16))
    whole = layers.dropout(x, 0.5, KEYS, index=2)
    halves = [layers.dropout(x[s], 0.5, KEYS[s], index=2) for s in np.s_[:4, 4:]]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert len({np.asarray(mask).tobytes() for mask in whole}) == 8
    assert np.any(layers.dropout(x, 0.5, KEYS, index=3) != whole)


def test_dropout_without_keys_or_rate_does_nothing():
    x = jnp.ones((8, 4))
    assert layers.dropout(x, 0.5, None, index=0) is x
    assert layers.dropout(x, 0.0, KEYS, index=0) is x
