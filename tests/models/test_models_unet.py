"""The U-Net's behaviour: what it sees, drops, recomputes and rounds."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_unet import batch, compiled, equations, example_keys, random_params, tiny

from ddpm_jax.models import functional


@pytest.fixture(scope="module")
def plain():
    """The tiny network with random parameters, compiled: (params, apply).

    All tests together trace it twice, for integer and for float timesteps.
    """
    net = tiny()
    return random_params(net), compiled(chex.assert_max_traces(net.apply, n=2))


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
    assert "down/1/attentions/0/qkv/kernel" in functional.by_path(net.shapes)


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
