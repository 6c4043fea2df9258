"""A network of the user's own: any two functions become a `Network`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import conditions, errors, keys
from ddpm_jax.models import functional

NOTE = "own"  # what config.json of a run says of its network


@dataclasses.dataclass(frozen=True, eq=False)
class OwnNetwork(functional.Network):
    """A network that draws its parameters itself.

    Attributes:
        initialise: `key → parameters`, for all leaves at once.
        takes_labels: whether it is given labels or None instead of a condition; what
            labels there are is then the config's to say, see `with_labels`.
    """

    takes_labels: bool = False

    def apply(self, params, x, t, condition=None, *, dropout_keys=None):
        """Run the network, see `Network.apply`.

        One that takes labels gets those that are given, until a config says which.
        """
        if self.takes_labels and not self.condition_spec:
            given = functional.as_condition(condition)
            return self.forward(params, x, t, given, dropout_keys=dropout_keys)
        return super().apply(params, x, t, condition, dropout_keys=dropout_keys)

    def init(self, key, shardings=None):
        """Draw the parameters, see `Network.init`."""
        with keys.pinned():
            return jax.jit(self.initialise, out_shardings=shardings)(key)


def own_network(
    init: Callable[[jax.Array], Any],
    apply: Callable[..., jax.Array],
    *,
    condition_spec: Mapping[str, Sequence] | None = None,
) -> OwnNetwork:
    """Return the `Network` of two functions, of whatever library; nothing is computed.

    Args:
        init: `init(key) → params`: any pytree of float32 arrays, from a typed key. All
            of them are trained and averaged: running statistics and random state have
            no place among them.
        apply: `apply(params, x, t, labels, dropout_keys) → output`: x [B, H, W, C]; t
            [B] timesteps, int32, or float32 in 0 … 1000 with
            diffusion.rescale_timesteps; labels int32 [B], None without
            model.class_conditional; dropout_keys [B] keys, None unless model.dropout
            asks for some in training; output float32 [B, H, W, C], or 2C channels where
            the variance is learned. Rows of a batch must not depend on each other.
        condition_spec: what apply reads besides x and t, by key: (shape of one example,
            dtype, value that means "no condition" or None), such as
            {"label": ((), "int32", 10)}. apply then gets a dictionary of arrays in
            place of labels: `apply(params, x, t, condition, dropout_keys)`.

    Raises:
        Refusal: parameters that are not float32 arrays, or no such specification.
    """
    specs = None if condition_spec is None else _specs(condition_spec)
    drawn = jax.eval_shape(lambda: init(keys.key(0)))
    leaves, structure = jax.tree_util.tree_flatten_with_path(drawn)
    names = [functional.path_name(path) for path, _ in leaves]
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if leaf.dtype != jnp.float32:
            raise errors.Refusal(
                f"the parameter {name} of your network is {leaf.dtype}: init must "
                "return float32 arrays alone; compute in another type inside apply, "
                "and keep random state out of the parameters"
            )
    if not names or len(set(names)) < len(names):
        raise errors.Refusal(
            f"your network has the parameters {names}: init must return at least one, "
            "each with a path of its own"
        )

    def forward(params, x, t, condition, *, dropout_keys=None):
        by_name = functional.by_path(params)
        given = jax.tree.unflatten(structure, [by_name[name] for name in names])
        seen = condition.get("label") if specs is None else dict(condition)
        with keys.pinned():
            return apply(given, x, t, seen, dropout_keys)

    return OwnNetwork(
        shapes=_nested(names, [leaf for _, leaf in leaves]),
        forward=forward,
        initialise=lambda key: _nested(names, jax.tree.leaves(init(key))),
        condition_spec=specs or {},
        takes_labels=specs is None,
    )


TYPES = ("int32", "float32", "bool")  # that a condition may have, as batches hold it
OF_TRAINING = ("image",)  # what a batch holds besides conditions


def _specs(given) -> dict[str, conditions.Spec]:
    """Return the user's specification of a condition, checked."""
    specs = {}
    for key, entry in given.items():
        if key in OF_TRAINING:
            raise errors.Refusal(
                f"condition_spec[{key!r}]: this is the name of the training images "
                "themselves; give the condition another name"
            )
        try:
            shape, dtype, none = (*entry, None)[:3]
            spec = conditions.Spec(tuple(shape), np.dtype(dtype).name, none)
            good = len(entry) in (2, 3) and spec.dtype in TYPES
            good &= all(n is None or n == int(n) >= 0 for n in spec.shape)
            if none is not None:
                fitting = tuple(1 if n is None else n for n in spec.shape)
                np.broadcast_to(np.asarray(none, spec.dtype), fitting)
        except (TypeError, ValueError):
            good = False
        if not good:
            raise errors.Refusal(
                f"condition_spec[{key!r}] is {entry!r}: give (shape of one example, "
                f"one of {', '.join(TYPES)}, and the value of that shape that means no "
                'condition, or None), such as ((), "int32", 10)'
            )
        specs[key] = spec
    return specs


def with_labels(
    network: functional.Network, specs: conditions.Specs
) -> functional.Network:
    """Return a network that takes labels, with what the config says of them.

    Args:
        network: any; one of another kind is returned as it is.
        specs: of the labels, {} for an unconditional run.
    """
    if not getattr(network, "takes_labels", False):
        return network
    return dataclasses.replace(network, condition_spec=specs)


def _nested(names, leaves):
    """Return {"a": {"b": leaf}} of names such as "a/b": what checkpoints hold."""
    tree = {}
    for name, leaf in zip(names, leaves, strict=True):
        *parents, last = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = leaf
    return tree


def check_output(
    network: functional.Network,
    *,
    image_shape: tuple[int, int, int],
    out_channels: int,
    float_timesteps: bool,
) -> None:
    """Refuse a network that does not answer as the loss will ask; computes nothing.

    Raises:
        Refusal: another shape or type of the output.
    """
    rows = 2
    output = jax.eval_shape(
        network.apply,
        network.shapes,
        jax.ShapeDtypeStruct((rows, *image_shape), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.float32 if float_timesteps else jnp.int32),
        conditions.abstract(network.condition_spec, rows),
    )
    wanted = (rows, *image_shape[:-1], out_channels)
    if output.shape != wanted or output.dtype != jnp.float32:
        raise errors.Refusal(
            f"your network makes {output.dtype}{list(output.shape)} of images "
            f"{[rows, *image_shape]}: it must return float32{list(wanted)}"
        )


def note(network: functional.Network | None) -> dict[str, Any]:
    """Return what config.json says of a network: nothing of one that it describes."""
    if not isinstance(network, OwnNetwork):
        return {}
    if network.takes_labels:
        return {"network": NOTE}
    return {"network": NOTE, "condition_spec": _plain(network.condition_spec)}


def _plain(specs) -> dict[str, list]:
    """Return a specification as JSON holds it."""
    return {
        key: [list(s.shape), s.dtype, np.asarray(s.none).tolist()]
        for key, s in specs.items()
    }


def is_noted(saved: dict) -> bool:
    """Return whether a config.json tells of a network of the user's own."""
    return saved.get("network") == NOTE


def check_note(saved: dict, network: functional.Network | None, workdir) -> None:
    """Refuse a run without the network that it was trained with.

    Args:
        saved: the object in its config.json.
        network: the network given by the user, if any.
        workdir: the run, for the sentence.

    Raises:
        Refusal: no network was given to a run of one, or the other way round.
    """
    if is_noted(saved) and network is None:
        raise errors.Refusal(
            f"{workdir} was trained with a network of your own, which no file holds: "
            f"open it in Python, ddpm_jax.load({str(workdir)!r}, network=…) or "
            "ddpm_jax.train(…, network=…)"
        )
    if not is_noted(saved) and network is not None:
        raise errors.Refusal(
            f"{workdir} was trained with the network that its config describes: leave "
            "network=… out, or choose another workdir for yours"
        )
    before = saved.get("condition_spec")
    if before is not None and before != note(network).get("condition_spec"):
        raise errors.Refusal(
            f"{workdir} was trained with condition_spec={before}, and the network that "
            f"is given has {note(network).get('condition_spec')}: give the same"
        )
