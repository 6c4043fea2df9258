"""The text encoder and what the U-Net makes of a text.

Against the numbers of GLIDE's own code: tests/convert/test_convert_glide.py.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special
from small_unet import batch, compiled, random_params, tiny

from ddpm_jax.core import conditions, errors
from ddpm_jax.models import attention, functional, text

SIZES = text.Text(width=8, layers=2, heads=2, context=5, vocabulary=11)
LENGTHS = (5, 2, 0, 3)


def small(**changes):
    """Return a network of one level that reads all there is; two: tests/convert."""
    reads = {"text": SIZES, "inpainting": True, "low_res": True}
    level = {"channel_mult": (1,), "attention_resolutions": (8,)}
    return tiny(**{**reads, **level, **changes})


@pytest.fixture(scope="module")
def net():
    return small()


@pytest.fixture(scope="module")
def params(net):
    # Louder in the text's part, whose way to the output is long.
    def louder(path, leaf):
        name = functional.path_name(path)
        return leaf * 3 if "text/" in name or "encoder_kv" in name else leaf

    return jax.tree_util.tree_map_with_path(louder, random_params(net))


@pytest.fixture(scope="module")
def apply(net):
    return compiled(net.apply)


@pytest.fixture(scope="module")
def condition():
    rng = np.random.default_rng(3)
    mask = np.arange(5) < np.array(LENGTHS)[:, None]
    tokens = np.where(mask, rng.integers(0, 10, (4, 5)), SIZES.padding)
    return {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "token_mask": jnp.asarray(mask),
        "known": jnp.asarray(rng.normal(size=(4, 8, 8, 3)), jnp.float32),
        "known_mask": jnp.asarray(rng.integers(0, 2, (4, 8, 8, 1)), jnp.float32),
        "low_res": jnp.asarray(rng.normal(size=(4, 4, 4, 3)), jnp.float32),
    }


# ---- the encoder, in NumPy at float64 ------------------------------------------------


def numpy_norm(p, h):
    centred = h - h.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / spread * p["scale"] + p["bias"]


def numpy_dense(p, h):
    return h @ p["kernel"] + p["bias"]


def numpy_distances(p, length):
    """What is learned, and where each of four heads begins."""
    learned = p["relative_bias"]
    added = np.zeros((len(learned), length, length))
    for head, i, j in np.ndindex(added.shape):
        begins = (3 * (j == i + 1), 3 * (j == i - 1), 1.5 * (j > i), 1.5 * (j < i))
        added[head, i, j] = learned[head, j - i + length - 1] + begins[head]
    return added


def numpy_block(p, h, heads):
    d = h.shape[-1] // heads
    packed = numpy_dense(p["qkv"], numpy_norm(p["norm_1"], h))
    mixed = np.zeros_like(h)
    for head in range(heads):  # [head][q|k|v][d]
        start = 3 * d * head
        q, k, v = (packed[:, start + i * d : start + (i + 1) * d] for i in range(3))
        weights = np.exp(q @ k.T / np.sqrt(d))
        if "distance" in p:
            weights *= np.exp(numpy_distances(p["distance"], len(h))[head])
        mixed[:, head * d : (head + 1) * d] = (
            weights / weights.sum(-1, keepdims=True) @ v
        )
    h = h + numpy_dense(p["project"], mixed)
    hidden = numpy_dense(p["dense_1"], numpy_norm(p["norm_2"], h))
    hidden = hidden * (1 + special.erf(hidden / np.sqrt(2))) / 2
    return h + numpy_dense(p["dense_2"], hidden)


def numpy_encoder(p, tokens, mask, heads):
    h = p["tokens"]["embedding"][tokens] + p["positions"]["embedding"]
    h = np.where(mask[:, None], h, p["padding"]["embedding"])
    for i in range(len(p["blocks"])):
        h = numpy_block(p["blocks"][str(i)], h, heads)
    h = numpy_norm(p["norm_out"], h)
    return h, numpy_dense(p["embed"], h[-1])


def test_the_encoder_is_its_formulas(net, params, condition):
    got = compiled(net.prepare)(params, condition)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["text"])
    for i in range(4):
        row = (np.asarray(condition[key])[i] for key in ("tokens", "token_mask"))
        states, pooled = numpy_encoder(exact, *row, SIZES.heads)
        np.testing.assert_allclose(got["text"][i], states, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(
            got["text_embedding"][i], pooled, rtol=1e-4, atol=2e-5
        )


def _set(module, values):
    """Put parameters into the layers that they are named after."""
    for path, leaf in functional.by_path(values).items():
        *parents, name = path.split("/")
        place = module
        for parent in parents:
            place = place[int(parent)] if parent.isdecimal() else getattr(place, parent)
        getattr(place, name)[...] = leaf


def test_relative_positions_are_added_to_the_logits():
    sizes = dataclasses.replace(SIZES, heads=4, relative=True)
    net = small(text=sizes)
    params = random_params(net)
    rng = np.random.default_rng(2)
    mask = np.arange(5) < 4
    tokens = np.where(mask, rng.integers(0, 10, 5), SIZES.padding)
    encoder = text.TextEncoder(sizes, 32, dtype=jnp.float32, rngs=nnx.Rngs(0))
    _set(encoder, params["text"])
    states, pooled = encoder(tokens[None], mask[None])
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["text"])
    wanted, wanted_pooled = numpy_encoder(exact, tokens, mask, sizes.heads)
    np.testing.assert_allclose(states[0], wanted, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(pooled[0], wanted_pooled, rtol=1e-4, atol=2e-5)


def test_a_text_that_is_not_relative_has_no_parameter_of_distances(net):
    relative = small(text=dataclasses.replace(SIZES, relative=True))
    more = set(functional.by_path(relative.shapes)) - set(
        functional.by_path(net.shapes)
    )
    assert more == {f"text/blocks/{i}/distance/relative_bias" for i in range(2)}


# ---- conditions ----------------------------------------------------------------------


def test_a_prepared_condition_gives_the_same(net, params, apply, condition):
    x, t = batch()
    prepared = compiled(net.prepare)(params, condition)
    assert prepared.keys() == net.prepared_spec.keys()
    assert {k: v.shape for k, v in prepared.items() if k.startswith("text")} == {
        "text": (4, 5, 8),
        "text_embedding": (4, 32),
    }
    assert net.prepare(params, prepared) is prepared
    raw = apply(params, x, t, condition)
    np.testing.assert_allclose(apply(params, x, t, prepared), raw, rtol=1e-4, atol=2e-5)
    assert np.std(raw) > 1e-2


def test_no_condition_is_padding_alone(net, condition):
    nothing = conditions.without(net.condition_spec, condition)
    assert np.all(np.asarray(nothing["tokens"]) == 10)
    assert not np.any(nothing["token_mask"])
    for key in ("known", "known_mask", "low_res"):  # guidance keeps these
        np.testing.assert_array_equal(nothing[key], condition[key])


def test_what_stands_at_padding_is_not_read(net, params, apply, condition):
    x, t = batch()
    elsewhere = jnp.where(condition["token_mask"], condition["tokens"], 4)
    np.testing.assert_array_equal(
        apply(params, x, t, {**condition, "tokens": elsewhere}),
        apply(params, x, t, condition),
    )


def test_every_token_and_its_place_matter(params, apply, condition):
    x, t = batch()
    whole = apply(params, x, t, condition)
    swapped = condition["tokens"].at[0].set(condition["tokens"][0, ::-1])
    shorter = condition["token_mask"].at[0, 2].set(False)
    for change in ({"tokens": swapped}, {"token_mask": shorter}):
        moved = np.abs(apply(params, x, t, {**condition, **change}) - whole)
        assert moved[0].max() > 1e-3
        np.testing.assert_array_equal(moved[1:], 0)


def test_the_known_image_counts_where_it_is_known(params, apply, condition):
    x, t = batch()
    whole = apply(params, x, t, condition)
    unknown = condition["known"] + 5 * (1 - condition["known_mask"])
    np.testing.assert_array_equal(
        apply(params, x, t, {**condition, "known": unknown}), whole
    )
    assert np.abs(apply(params, x, t, {**condition, "known": -unknown}) - whole).max()


def test_every_parameter_has_a_gradient(net, params, condition):
    x, t = batch()
    target = jnp.asarray(np.random.default_rng(5).normal(size=x.shape), jnp.float32)

    def loss(params):
        return jnp.mean((net.apply(params, x, t, condition) - target) ** 2)

    gradient = functional.by_path(compiled(jax.grad(loss))(params))
    assert {"text/padding/embedding", "middle/attention/encoder_kv/kernel"} <= set(
        gradient
    )
    assert [path for path, leaf in gradient.items() if not np.any(leaf)] == []


def test_a_new_encoder_starts_at_random(net):
    # The release has no start for positions and padding; ours are as those of tokens.
    shapes = functional.by_path(net.shapes)
    for path in shapes:
        kind, scale = net.initialise(path, shapes)
        if path.startswith("text/") and path.endswith("/embedding"):
            assert (kind, scale) == ("normal", 1.0), path
        if path.startswith("text/") and path.endswith("/kernel"):
            assert kind == "uniform", path
            np.testing.assert_allclose(scale, shapes[path].shape[0] ** -0.5)


def test_rematerialisation_keeps_the_text(net, params, apply, condition):
    x, t = batch()
    other = small(remat="blocks")
    chex.assert_trees_all_equal_shapes(other.shapes, net.shapes)
    np.testing.assert_allclose(
        compiled(other.apply)(params, x, t, condition),
        apply(params, x, t, condition),
        rtol=1e-5,
        atol=1e-5,
    )


def test_a_trunk_of_bfloat16_gets_a_text_of_float32(params, condition):
    half = small(dtype="bfloat16")
    x, t = batch()
    prepared = jax.eval_shape(half.prepare, params, condition)
    assert {leaf.dtype for leaf in prepared.values()} == {jnp.dtype("float32")}
    made = jax.eval_shape(half.apply, params, x, t, prepared)
    assert (made.shape, made.dtype) == (x.shape, jnp.float32)


def test_keys_and_values_alone_are_packed_in_both_orders():
    packed = jnp.arange(24.0).reshape(1, 2, 12)  # [B, N, 2·2·3]
    keys, values = attention.split_qkv(packed, heads=2, order="legacy", parts=2)
    np.testing.assert_array_equal(keys[0, 0], [[0, 1, 2], [6, 7, 8]])
    np.testing.assert_array_equal(values[0, 1], [[15, 16, 17], [21, 22, 23]])
    keys, values = attention.split_qkv(packed, heads=2, order="new", parts=2)
    np.testing.assert_array_equal(keys[0, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(values[0, 1], [[18, 19, 20], [21, 22, 23]])


# ---- refusals ------------------------------------------------------------------------


def sizes(**changes):
    return text.Text(**{**SIZES.__dict__, **changes})


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(errors.Refusal, match="text_heads 3 does not divide text_width"):
        sizes(heads=3)
    with pytest.raises(errors.Refusal, match="text_context is 0"):
        sizes(context=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tokens": jnp.full((4, 5), 11, jnp.int32)}, "'tokens' is 11: choose 0 … 10"),
        ({"tokens": jnp.zeros((4, 6), jnp.int32)}, r"'tokens' is int32\[4, 6\]"),
        ({"token_mask": jnp.ones((4, 5))}, r"'token_mask' is float32\[4, 5\]"),
        ({"known_mask": jnp.ones((4, 8, 8, 3))}, r"'known_mask' is .*8, 8, 3\]"),
        ({"text": jnp.ones((4, 5, 8))}, "'token.*' was given to a network that reads"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(change, match, net, params, condition):
    x, t = batch()
    with pytest.raises(errors.Refusal, match=match):
        net.apply(params, x, t, {**condition, **change})


def test_preparing_needs_the_whole_condition(net, params, condition):
    rest = {key: value for key, value in condition.items() if key != "token_mask"}
    with pytest.raises(errors.Refusal, match="reads the condition 'token_mask'"):
        net.prepare(params, rest)
