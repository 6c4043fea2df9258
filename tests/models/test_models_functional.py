"""The seam: plain dictionaries outside, Flax inside, draws that know their name."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ddpm_jax.core import conditions
from ddpm_jax.models import functional, initialisation


class Toy(nnx.Module):
    """One of each kind of leaf; `extra` adds a layer between the others."""

    def __init__(self, rngs, extra=False):
        self.conv_in = nnx.Conv(8, 64, (3, 3), rngs=rngs)
        if extra:
            self.another = nnx.Linear(64, 64, rngs=rngs)
        self.hidden = nnx.List([nnx.Linear(64, 64, rngs=rngs) for _ in range(12)])
        self.norm = nnx.GroupNorm(64, num_groups=8, rngs=rngs)
        self.label_embedding = nnx.Embed(64, 64, rngs=rngs)
        self.conv_out = nnx.Conv(64, 8, (3, 3), rngs=rngs)

    def __call__(self, x, t, condition, *, dropout_keys):
        h = self.conv_in(x)
        for layer in self.hidden:
            h = layer(h)
        h = self.norm(h) + self.label_embedding(condition["label"])[:, None, None, :]
        return self.conv_out(h) + t[:, None, None, None]


@pytest.fixture(scope="module")
def toy():
    return functional.functional(
        Toy,
        initialisation.RULES["openai"],
        {"label": conditions.Spec((), "int32")},
    )


@pytest.fixture(scope="module")
def params(toy):
    return toy.init(jax.random.key(0))


def test_parameters_are_plain_dictionaries_of_float32(toy, params):
    def check(tree):
        assert type(tree) is dict
        for key, value in tree.items():
            assert type(key) is str
            if isinstance(value, dict):
                check(value)
            else:
                assert isinstance(value, jax.Array)
                assert value.dtype == jnp.float32

    check(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, toy.shapes)
    assert {"conv_in/kernel", "hidden/10/bias", "norm/scale"} <= set(
        functional.by_path(params)
    )


def test_num_parameters_counts_every_number(toy, params):
    by_hand = (9 * 8 * 64 + 64) + 12 * (64 * 64 + 64) + 2 * 64 + 64 * 64
    by_hand += 9 * 64 * 8 + 8
    assert functional.num_parameters(toy.shapes) == by_hand
    assert functional.num_parameters(params) == by_hand


@pytest.mark.parametrize(
    ("path", "fan_in"),
    [
        ("conv_in/kernel", 9 * 8),
        ("conv_in/bias", 9 * 8),
        ("hidden/3/kernel", 64),
        ("hidden/3/bias", 64),
    ],
)
def test_kernels_and_biases_are_uniform_within_the_fan_in(params, path, fan_in):
    values = np.asarray(functional.by_path(params)[path], np.float64).ravel()
    bound = 1 / np.sqrt(fan_in)
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    # A uniform law: mean 0, variance bound²/3, fourth moment bound⁴/5.
    error = 4 / np.sqrt(values.size)
    assert abs(values.mean()) < bound / np.sqrt(3) * error
    spread = np.sqrt(1 / 5 - 1 / 9) * error
    assert abs((values**2).mean() / bound**2 - 1 / 3) < spread


def test_embeddings_are_standard_normal(params):
    values = np.asarray(params["label_embedding"]["embedding"], np.float64)
    error = 4 / np.sqrt(values.size)
    assert abs(values.mean()) < error
    assert abs((values**2).mean() - 1) < np.sqrt(2) * error
    assert abs((np.abs(values) > 1.96).mean() - 0.05) < np.sqrt(0.05) * error


def test_norms_are_neutral_and_closing_modules_zero(params):
    np.testing.assert_array_equal(params["norm"]["scale"], 1.0)
    np.testing.assert_array_equal(params["norm"]["bias"], 0.0)
    np.testing.assert_array_equal(params["conv_out"]["kernel"], 0.0)
    np.testing.assert_array_equal(params["conv_out"]["bias"], 0.0)


def test_each_leaf_has_numbers_of_its_own(toy, params):
    kernels = [np.asarray(layer["kernel"]) for layer in params["hidden"].values()]
    assert len({kernel.tobytes() for kernel in kernels}) == 12
    other = toy.init(jax.random.key(1))
    assert np.any(other["hidden"]["0"]["kernel"] != kernels[0])


def test_a_leaf_depends_on_its_path_and_not_on_its_neighbours(params):
    extended = functional.functional(
        lambda rngs: Toy(rngs, extra=True), initialisation.RULES["openai"]
    ).init(jax.random.key(0))
    del extended["another"]
    chex.assert_trees_all_equal(extended, params)


def test_draws_do_not_depend_on_the_sharding(toy, params):
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(shape):
        axis = int(np.argmax(shape.shape))
        spec = [None] * len(shape.shape)
        spec[axis] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    shardings = jax.tree.map(place, toy.shapes)
    sharded = toy.init(jax.random.key(0), shardings)
    jax.tree.map(_check_sharding, sharded, shardings)
    chex.assert_trees_all_equal(jax.device_get(sharded), jax.device_get(params))


def _check_sharding(leaf, wanted):
    assert leaf.sharding == wanted
    assert leaf.addressable_shards[0].data.size == leaf.size // 8


def test_apply_is_traced_once_and_pure(toy, params):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def apply(params, x, t, labels):
        return toy.apply(params, x, t, labels)

    x = jnp.ones((2, 4, 4, 8))
    labels = jnp.array([0, 3])
    before = jax.device_get(params)
    first = apply(params, x, jnp.array([1.0, 2.0]), labels)
    second = apply(params, 2 * x, jnp.array([3.0, 4.0]), labels + 1)
    # conv_out is zero at first: the output is the timestep alone.
    np.testing.assert_array_equal(first[1], 2.0)
    np.testing.assert_array_equal(second[0], 3.0)
    chex.assert_trees_all_equal(jax.device_get(params), before)


def test_list_entries_keep_their_order(toy, params):
    # Entry "10" sorts before "2" as text; swapping the two layers must not be undone.
    def product(params):
        layers = [params["hidden"][str(i)]["kernel"] for i in range(12)]
        return np.linalg.multi_dot([np.asarray(k, np.float64) for k in layers])

    h = jax.tree.map(jnp.zeros_like, params)
    h["hidden"] = {
        name: {"kernel": layer["kernel"] * 2, "bias": jnp.zeros(64)}
        for name, layer in params["hidden"].items()
    }
    h["norm"] = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
    h["conv_in"]["kernel"] = (
        h["conv_in"]["kernel"].at[1, 1].set(params["conv_in"]["kernel"][1, 1])
    )
    h["conv_out"]["kernel"] = h["conv_out"]["kernel"].at[1, 1].set(jnp.eye(64, 8))
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 1, 1, 8)
    got = toy.apply(h, jnp.asarray(x), jnp.zeros(1), jnp.zeros(1, jnp.int32))

    features = x[0, 0, 0] @ np.asarray(h["conv_in"]["kernel"][1, 1]) @ product(h)
    groups = features.reshape(8, 8)
    normed = (groups - groups.mean(1, keepdims=True)) / np.sqrt(
        groups.var(1, keepdims=True) + 1e-6
    )
    np.testing.assert_allclose(got[0, 0, 0], normed.ravel()[:8], atol=1e-3)


def test_foreign_parameters_are_refused_by_path(toy, params):
    args = jnp.ones((1, 4, 4, 8)), jnp.ones(1), jnp.zeros(1, jnp.int32)
    missing = {k: v for k, v in params.items() if k != "norm"}
    with pytest.raises(ValueError, match=r"norm/bias is missing but should be \(64,\)"):
        toy.apply(missing, *args)
    extra = {**params, "gate": {"bias": jnp.ones(3)}}
    with pytest.raises(ValueError, match=r"gate/bias is \(3,\) but should be absent"):
        toy.apply(extra, *args)
    wrong = {**params, "norm": {"bias": jnp.ones(32), "scale": jnp.ones(64)}}
    with pytest.raises(ValueError, match=r"norm/bias is \(32,\) but should be \(64,\)"):
        toy.apply(wrong, *args)


@pytest.mark.parametrize("rule", initialisation.RULES.values())
def test_a_leaf_without_a_rule_is_refused(rule):
    with pytest.raises(ValueError, match="gate/temperature"):
        rule("gate/temperature", {})


SHAPES = {
    "conv_in/kernel": (3, 3, 3, 128),
    "conv_in/bias": (128,),
    "block/norm_1/scale": (128,),
    "block/norm_1/bias": (128,),
    "block/embed/kernel": (512, 256),
    "block/conv_2/kernel": (3, 3, 256, 256),
    "block/conv_2/bias": (256,),
    "attention/qkv/kernel": (256, 768),
    "attention/proj_out/kernel": (256, 256),
    "label_embedding/embedding": (10, 512),
}
ZERO, ONE = ("constant", 0.0), ("constant", 1.0)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        # Glorot-uniform: ±√(6 / (fan_in + fan_out)), √(1e-10) of it at the end.
        (
            "ddpm",
            {
                "conv_in/kernel": ("uniform", (6 / (9 * (3 + 128))) ** 0.5),
                "conv_in/bias": ZERO,
                "block/norm_1/scale": ONE,
                "block/norm_1/bias": ZERO,
                "block/embed/kernel": ("uniform", (6 / (512 + 256)) ** 0.5),
                "block/conv_2/kernel": ("uniform", 1e-5 * (6 / (9 * 512)) ** 0.5),
                "block/conv_2/bias": ZERO,
                "attention/qkv/kernel": ("uniform", (6 / (256 + 256)) ** 0.5),
                "attention/proj_out/kernel": ("uniform", 1e-5 * (6 / 512) ** 0.5),
                "label_embedding/embedding": ("normal", 1.0),
            },
        ),
        # ±1/√fan_in everywhere.
        (
            "torch",
            {
                "conv_in/kernel": ("uniform", 27**-0.5),
                "conv_in/bias": ("uniform", 27**-0.5),
                "block/norm_1/scale": ONE,
                "block/norm_1/bias": ZERO,
                "block/embed/kernel": ("uniform", 512**-0.5),
                "block/conv_2/kernel": ("uniform", (9 * 256) ** -0.5),
                "block/conv_2/bias": ("uniform", (9 * 256) ** -0.5),
                "attention/qkv/kernel": ("uniform", 1 / 16),
                "attention/proj_out/kernel": ("uniform", 1 / 16),
                "label_embedding/embedding": ("normal", 1.0),
            },
        ),
    ],
)
def test_rules_have_the_distributions_of_their_codes(rule, wanted):
    shapes = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in SHAPES.items()}
    for path in SHAPES:
        kind, scale = initialisation.RULES[rule](path, shapes)
        assert (kind, pytest.approx(scale)) == wanted[path], path
