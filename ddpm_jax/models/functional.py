"""The seam between Flax and the rest of the package: a network is two functions.

`init(key) → params` and `apply(params, x, t, …) → output`, where `params` is a plain
nested dictionary with string keys and float32 leaves. No Flax object passes this file
outwards, so checkpoints, converters and sharding rules know dictionaries only.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ddpm_jax.core import conditions, flags, keys
from ddpm_jax.models import initialisation

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network as two pure functions and the shapes of its parameters.

    Compared and hashed by identity, so that `jax.jit(network.apply)` works.

    Attributes:
        shapes: nested dictionary of `jax.ShapeDtypeStruct`, one per parameter.
        forward: the function behind `apply`.
        initialise: rule (path, shapes by path) → `initialisation.Draw`.
        condition_spec: what the network reads besides x and t, by key.
        prepared_spec: the same of what `prepare` returns; {} where that is no other.
        encode: the function behind `prepare`, None where there is nothing to do.
    """

    shapes: Params
    forward: Callable[..., jax.Array]
    initialise: initialisation.Rule
    condition_spec: conditions.Specs = dataclasses.field(default_factory=dict)
    prepared_spec: conditions.Specs = dataclasses.field(default_factory=dict)
    encode: Callable[..., conditions.Condition] | None = None

    def init(self, key: jax.Array, shardings: Params | None = None) -> Params:
        """Draw the parameters, each leaf by itself and straight into its place.

        The key of a leaf is `fold_in(key, crc32(path))`: its values depend on its name,
        not on the other leaves, their order or the devices.

        Args:
            key: a typed key.
            shardings: tree like `shapes` of `jax.sharding.Sharding`, or None to leave
                every leaf on the default device.

        Returns:
            Nested dictionary of float32 arrays, shaped as `shapes`.
        """
        shapes = by_path(self.shapes)

        def draw(path, shape, sharding=None):
            name = path_name(path)
            kind, scale = self.initialise(name, shapes)
            leaf_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
            return _drawer(kind, shape.shape, sharding)(leaf_key, scale)

        trees = (self.shapes,) if shardings is None else (self.shapes, shardings)
        return jax.tree_util.tree_map_with_path(draw, *trees)

    def apply(
        self,
        params: Params,
        x: jax.Array,
        t: jax.Array,
        condition: conditions.Condition | jax.Array | None = None,
        *,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Run the network.

        Args:
            params: what `init` returns.
            x: [B, H, W, C] images.
            t: [B] timesteps as the network is to see them, int32 or float32.
            condition: arrays [B, ...] by the keys of `condition_spec`: "label" int32
                [B], rows of the label embedding; "low_res" [B, h, w, C], images to
                enlarge, in [−1, 1], perhaps with "low_res_level" int32 [B], the level
                of their noise; "tokens" and "token_mask", see `text.Text`; "known"
                and "known_mask", see `unet.unet`; or what `prepare` made of them. None
                is {}, and an array is taken for the label.
            dropout_keys: [B] typed keys, one per example, so that an example is treated
                alike in any batch; None evaluates without dropout.

        Returns:
            float32 [B, H, W, out_channels], of a classifier [B, num_classes].

        Raises:
            Refusal: a condition that the network does not read as it stands.
            ValueError: `params` is not the tree of this network.
        """
        _check_params(params, self.shapes)
        condition = as_condition(condition)
        specs = self.prepared_spec if self._is_prepared(condition) else None
        conditions.check(specs or self.condition_spec, condition, x.shape[0])
        with flags.as_written():
            return self.forward(params, x, t, condition, dropout_keys=dropout_keys)

    def prepare(
        self, params: Params, condition: conditions.Condition
    ) -> conditions.Condition:
        """Return the condition as `apply` takes it at every step of a chain.

        It is called once before the chain, for what does not depend on x and t, such as
        a text encoder.

        Args:
            params: what `init` returns.
            condition: arrays [B, ...] by the keys of `condition_spec`, or what this
                function returned, which it returns again.

        Returns:
            Arrays [B, ...] by the keys of `prepared_spec`, where there is one.

        Raises:
            Refusal, ValueError: as `apply`.
        """
        if self.encode is None or self._is_prepared(condition):
            return condition
        _check_params(params, self.shapes)
        batch = next(iter(condition.values())).shape[0] if condition else 0
        conditions.check(self.condition_spec, condition, batch)
        with flags.as_written():
            return self.encode(params, condition)

    def _is_prepared(self, condition):
        return bool(
            condition.keys() & (self.prepared_spec.keys() - self.condition_spec)
        )


def as_condition(given) -> conditions.Condition:
    """Return a condition from what callers write: {}, None, or labels alone."""
    if given is None:
        return {}
    return given if isinstance(given, Mapping) else {"label": jnp.asarray(given)}


def functional(
    build_module: Callable[[nnx.Rngs], nnx.Module],
    initialise: initialisation.Rule,
    condition_spec: conditions.Specs | None = None,
    prepared_spec: conditions.Specs | None = None,
) -> Network:
    """Turn an NNX module into a `Network`, without computing anything.

    Args:
        build_module: makes the module from what stands for `nnx.Rngs`; the module holds
            parameters only (no random state, no statistics) and is called as
            `module(x, t, condition, dropout_keys=…)`.
        initialise: the rule that draws its parameters in the module's stead.
        condition_spec: what the module reads besides x and t; None for nothing.
        prepared_spec: what its method `prepare(condition)` returns; None without one.
            The module takes such a condition in place of the other.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: build_module(_NoDraws())))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32),
        _with_string_keys(nnx.to_pure_dict(state)),
    )

    def merged(params):
        # A fresh copy, since replace_by_pure_dict writes into the state it is given.
        filled = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(filled, _with_list_indices(params))
        return nnx.merge(graph, filled)

    def forward(params, x, t, condition, *, dropout_keys=None):
        return merged(params)(x, t, condition, dropout_keys=dropout_keys)

    def encode(params, condition):
        return merged(params).prepare(condition)

    return Network(
        shapes=shapes,
        forward=forward,
        initialise=initialise,
        condition_spec=condition_spec or {},
        prepared_spec=prepared_spec or {},
        encode=encode if prepared_spec else None,
    )


class _NoDraws:
    """One key for all layers, in place of `nnx.Rngs`: only their shapes are wanted.

    `nnx.Rngs` counts its keys, and to trace that takes a time quadratic in the number
    of layers: seconds for the networks of ADM.
    """

    def __init__(self):
        self.key = keys.key(0)

    def params(self):
        return keys.clone(self.key)


def num_parameters(shapes: Params) -> int:
    """Return how many numbers a tree of shapes (or of arrays) holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def by_path(tree: Params) -> dict[str, Any]:
    """Return the leaves of nested dictionaries by path, e.g. "conv_in/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def path_name(path: tuple) -> str:
    """Return a JAX key path joined by slashes, e.g. "down/0/blocks/1/conv_1/bias"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


@functools.lru_cache(maxsize=4096)
def _drawer(kind, shape, sharding):
    """One small compiled draw, shared by all leaves of this shape and distribution."""
    distribution = initialisation.DISTRIBUTIONS[kind]

    def draw(key, scale):
        # Drawn flat: random bits over several axes take three times as long to compile.
        return scale * distribution(key, (math.prod(shape),)).reshape(shape)

    return jax.jit(draw, out_shardings=sharding)


def _check_params(params, shapes):
    given, wanted = by_path(params), by_path(shapes)
    for path in sorted(given.keys() | wanted.keys()):
        has = given[path].shape if path in given else "missing"
        needs = wanted[path].shape if path in wanted else "absent"
        if has != needs:
            raise ValueError(
                f"these parameters belong to another network: {path} is {has} "
                f"but should be {needs}"
            )


def _with_string_keys(tree):
    if not isinstance(tree, dict):
        return tree
    return {str(key): _with_string_keys(value) for key, value in tree.items()}


def _with_list_indices(tree):
    """Undo `_with_string_keys`: NNX numbers the entries of a list by integers."""
    if not isinstance(tree, dict):
        return tree
    return {
        int(key) if key.isdecimal() else key: _with_list_indices(value)
        for key, value in tree.items()
    }
