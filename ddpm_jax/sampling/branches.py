"""The branches of a guided network, and how their outputs become one.

    main       the network under the condition of the images
    negative   the same network under no condition, or under another one
    weaker     another network, which is worse at the same task

A kind of mixing is a function `(mean so far, mean of its branch, **numbers) → mean` and
an entry of `GUIDANCE`; a recipe names those that it takes, in order.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ddpm_jax.core import arrays, conditions
from ddpm_jax.diffusion import guidance

MAIN, NEGATIVE, WEAKER = guidance.MAIN, "negative", "weaker"
SHARE = "share"  # in the condition: float [B] of the other condition, 0 … 1


class Mixing(NamedTuple):
    """An entry of `GUIDANCE`.

    Attributes:
        branch: what it mixes with.
        mix: see the module; None where the branch takes the place of the main one.
    """

    branch: str
    mix: Callable | None


GUIDANCE = {
    "unconditional": Mixing(NEGATIVE, None),
    "classifier_free": Mixing(NEGATIVE, guidance.extrapolated),
    "weaker": Mixing(WEAKER, guidance.extrapolated),
    "rescale": Mixing(MAIN, guidance.rescaled),
}


class Given(NamedTuple):
    """A network with its weights, and what the images are conditioned on.

    Attributes:
        network: has `apply`, `prepare` and `condition_spec`.
        params: its parameters.
        condition: arrays [B, ...] by key.
    """

    network: object
    params: object
    condition: Mapping

    @classmethod
    def of(cls, network, params, condition) -> "Given":
        """Return a network with what it reads of a condition."""
        read = {key: condition[key] for key in network.condition_spec}
        return cls(network, params, read)

    def prepared(self, condition):
        """Return the condition as the network reads it at every step."""
        return self.network.prepare(self.params, condition)

    def apply(self, x_t, t_seen, condition):
        """Return the output of the network under a prepared condition."""
        return self.network.apply(self.params, x_t, t_seen, condition)

    def alone(self):
        """Return `(x_t, t_seen) → output`."""
        return self.under(self.condition)

    def under(self, condition):
        """Return `(x_t, t_seen) → output` under another condition."""
        given = self.prepared(condition)
        return lambda x_t, t_seen: self.apply(x_t, t_seen, given)


def negative(specs: conditions.Specs, condition, values: Mapping):
    """Return the condition of the negative branch.

    Args:
        specs: of the network.
        condition: of the images, arrays [B, ...] by key.
        values: by key, one for all images; keys that are not there are at their "no
            condition" value.
    """
    nothing = conditions.without(specs, condition)
    filled = {key: conditions.filled(condition[key], v) for key, v in values.items()}
    return {**nothing, **filled}


def network(
    main: Given,
    names: Sequence[str],
    numbers: Sequence[Mapping],
    *,
    negative_values: Mapping,
    weaker: Given | None = None,
):
    """Return `(x_t, t_seen) → output`, with every condition and the guidance in it.

    Args:
        main: the network that is guided.
        names: keys of `GUIDANCE`.
        numbers: of each, by name.
        negative_values: see `negative`.
        weaker: the network of that branch.
    """
    if not names:
        return main.alone()
    other = negative(main.network.condition_spec, main.condition, negative_values)
    steps = list(zip(names, numbers, strict=True))
    if GUIDANCE[names[0]].mix is None:
        main, steps = main._replace(condition=other), steps[1:]
        if not steps:
            return main.alone()
        if weaker is not None:
            specs = weaker.network.condition_spec
            weaker = weaker._replace(condition=negative(specs, weaker.condition, {}))
    wanted = {GUIDANCE[name].branch for name, _ in steps}
    if NEGATIVE in wanted:
        both = guidance.in_pairs(
            main.apply, main.prepared(main.condition), main.prepared(other)
        )
    else:
        alone = main.alone()
    beside = weaker.alone() if WEAKER in wanted else None
    mixings = [_bound(GUIDANCE[name], options) for name, options in steps]

    def outputs(x_t, t_seen):
        if NEGATIVE in wanted:
            found = dict(zip((MAIN, NEGATIVE), both(x_t, t_seen), strict=True))
        else:
            found = {MAIN: alone(x_t, t_seen)}
        return found | ({WEAKER: beside(x_t, t_seen)} if beside else {})

    def guided(x_t, t_seen):
        return guidance.mixed(outputs(x_t, t_seen), mixings, x_t.shape[-1])

    return guided


def other_key(key: str) -> str:
    """Return the key of the other condition that images are between."""
    return f"other_{key}"


def between(make: Callable, main: Given, condition: Mapping):
    """Return the network of images between two conditions, or `make(main)`.

    Its output is (1−λ) of what the network says under the one and λ of what it says
    under the other, each guided; λ is `SHARE` in the condition, one for each image.

    Args:
        make: a `Given` → `(x_t, t_seen) → output`.
        main: the network under the first condition.
        condition: of the images, with the keys of `other_key` for what differs.
    """
    one = make(main)
    if SHARE not in condition:
        return one
    changed = {key: condition.get(other_key(key)) for key in main.condition}
    changed = {key: value for key, value in changed.items() if value is not None}
    other = make(main._replace(condition={**main.condition, **changed}))

    def network(x_t, t_seen):
        output = one(x_t, t_seen)
        share = arrays.expand_to(condition[SHARE].astype(output.dtype), output)
        return (1 - share) * output + share * other(x_t, t_seen)

    return network


def _bound(mixing: Mixing, options: Mapping):
    mix = functools.partial(mixing.mix, **options)
    return lambda mean, means: mix(mean, means[mixing.branch])
