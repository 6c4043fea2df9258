"""The recipe: everything that decides image i, but the weights.

A recipe holds numbers, names and tuples only: it is frozen, hashable and JSON both
ways; arrays and networks stand in it by fingerprint. From it alone derive

    structure()   what a program is compiled for: names and shapes
    inputs()      what the compiled program is given: path, tables, numbers, seed
    request()     what is kept beside images, and must be equal to add to them
    tag()         the name of their folder

so that nothing that changes an image can be missing from its name.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import runtime
from ddpm_jax.core import conditions, errors
from ddpm_jax.diffusion import guidance, process, reverse, samplers, solvers

VERSION = 2  # of request.json; 1 had no version and wrote every setting
MAX_NAMED_VALUES = 10


class Part(NamedTuple):
    """One value that a chain is composed of: its name in a table, and its options."""

    name: str
    options: tuple[tuple[str, float], ...] = ()


def part(name: str, **options: float) -> Part:
    """Return a part; the options are its numbers."""
    return Part(name, tuple(options.items()))


ANCESTRAL = part("ancestral")


class Setting(NamedTuple):
    """A setting by the name of its field, for requests, tags and cards.

    `usual` is the value that goes without saying; request.json leaves it out.
    """

    name: str
    value: Any
    usual: Any


# ---- what the names of parts stand for -----------------------------------------------

HOOKS = {
    "clip": reverse.clip,
    "dynamic_threshold": reverse.dynamic_threshold,
}

# name → (network(x_t, t_seen, condition), condition, unconditional, **options) →
# network(x_t, t_seen). Without guidance the condition is simply given.
GUIDANCE = {
    "unconditional": lambda network, condition, unconditional: guidance.classifier_free(
        network, condition, unconditional, 0
    ),
    "classifier_free": lambda network, condition, unconditional, *, scale: (
        guidance.classifier_free(network, condition, unconditional, scale)
    ),
}


# ---- weights -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Parameters that images are made with.

    Attributes:
        params: on their devices.
        kind: "ema", "raw" or "imported".
        why: the sentence that says which were taken, and why.
        step: optimizer steps that they have taken.
        fingerprint: changes with the weights: of the checkpoint's manifest and `kind`.
    """

    params: Any
    kind: str
    why: str
    step: int = 0
    fingerprint: str = ""


# ---- the recipe ----------------------------------------------------------------------


class Structure(NamedTuple):
    """What a program is compiled for. Recipes of one structure share the program."""

    prediction: str
    variance: str
    shape: tuple[int, ...]
    solver: str
    hooks: tuple[str, ...]
    guidance: str
    kinds: frozenset[str]
    has_condition: bool


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything but the weights that decides image i.

    Attributes:
        schedule: the process, respaced to the steps that are taken.
        prediction, variance: what the network's output means.
        shape: of one state, (H, W, C) for images.
        solver: a part named in `solvers.SOLVERS`.
        settings: what was asked for, field by field.
        hooks: parts named in `HOOKS`, on x̂_0 in this order.
        guidance: a part named in `GUIDANCE`; None for the plain conditional network.
        condition: (key, values) of each; the images take the values in turn.
        path: see `diffusion.samplers`; None for every step of the process.
        seed: decides every draw, together with i.
    """

    schedule: process.Schedule
    prediction: str
    variance: str
    shape: tuple[int, ...]
    solver: Part = ANCESTRAL
    settings: tuple[Setting, ...] = ()
    hooks: tuple[Part, ...] = ()
    guidance: Part | None = None
    condition: tuple[tuple[str, tuple], ...] = ()
    path: tuple | None = None
    seed: int = 0

    def __post_init__(self):
        errors.choose("sampling method", solvers.SOLVERS, self.solver.name)
        for hook in self.hooks:
            errors.choose("hook", HOOKS, hook.name)
        if self.guidance is not None:
            errors.choose("guidance", GUIDANCE, self.guidance.name)

    # ---- making ----

    @property
    def whole_path(self) -> samplers.Path:
        """The path from x_T to the image."""
        steps = samplers.sampling_path(self.schedule.num_steps)
        return steps if self.path is None else self.path

    def make_solver(self):
        """Return the solver, a value of `diffusion.solvers`."""
        return solvers.SOLVERS[self.solver.name](**dict(self.solver.options))

    def make_hooks(self) -> tuple[reverse.X0Hook, ...]:
        """Return the hooks on x̂_0."""
        return tuple(HOOKS[hook.name](**dict(hook.options)) for hook in self.hooks)

    def check(self) -> None:
        """Refuse parts that do not belong together; every value is on the host here."""
        reverse.check_parameterisation(
            self.schedule, prediction=self.prediction, variance=self.variance
        )
        denoise = reverse.Denoiser(
            None, None, self.prediction, self.variance, self.make_hooks()
        )
        samplers.check(
            self.schedule.num_steps, denoise, self.make_solver(), self.whole_path
        )

    def structure(self) -> Structure:
        """Return what a program is compiled for."""
        return Structure(
            prediction=self.prediction,
            variance=self.variance,
            shape=self.shape,
            solver=self.solver.name,
            hooks=tuple(hook.name for hook in self.hooks),
            guidance="" if self.guidance is None else self.guidance.name,
            kinds=frozenset(kind for _, _, kind, *_ in self.whole_path),
            has_condition=bool(self.condition),
        )

    def inputs(self) -> dict[str, Any]:
        """Return what a program of this structure is given: host arrays and numbers.

        Tables and path are filled up to the T of the whole process, so that another
        number of steps has the same shapes. "settings" holds the settings that are
        floats, for what no part of the recipe takes; what is not read costs nothing.
        """
        path, length = self.whole_path, self.schedule.original_num_steps
        rounds = -(-len(path) // length)  # a longer path takes a multiple of it
        return {
            "tables": process.padded_tables(self.schedule, length),
            "entries": samplers.entries(path, rounds * length),
            "count": np.int32(len(path)),
            "solver": self.make_solver(),
            "hooks": self.make_hooks(),
            "guidance": {
                name: np.float32(value)
                for name, value in (self.guidance.options if self.guidance else ())
            },
            "settings": {
                s.name: np.float32(s.value)
                for s in self.settings
                if isinstance(s.value, float)
            },
            "seed": np.uint32(self.seed),
        }

    def condition_of(self, index: np.ndarray, specs) -> dict[str, np.ndarray]:
        """Return the condition of some images, by the values that they take in turn.

        A key that the recipe does not have is at its "no condition" value.

        Args:
            index: [n] of the images.
            specs: what the network reads, see `core.conditions`.

        Raises:
            Refusal: the network reads another condition.
        """
        given = {
            key: np.asarray(values, specs[key].dtype if key in specs else None)[
                index % len(values)
            ]
            for key, values in self.condition
        }
        for key in specs.keys() - given.keys():
            shape, dtype, none = specs[key]
            if none is not None and None not in shape:
                given[key] = np.full((len(index), *shape), none, dtype)
        conditions.check(specs, given, len(index))
        return given

    # ---- JSON ----

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """Return the recipe that `to_json` wrote."""
        fields = {name: _frozen(value) for name, value in values.items()}
        schedule = {k: _frozen(v) for k, v in values["schedule"].items()}
        fields["schedule"] = process.Schedule(**schedule)
        fields["solver"] = Part(*fields["solver"])
        fields["hooks"] = tuple(Part(*hook) for hook in fields["hooks"])
        fields["settings"] = tuple(Setting(*s) for s in fields["settings"])
        if fields["guidance"] is not None:
            fields["guidance"] = Part(*fields["guidance"])
        return cls(**fields)

    # ---- naming ----

    def as_dict(self, weights: Weights) -> dict[str, Any]:
        """Return every setting by name, and which weights: what cards tell."""
        asked = {setting.name: setting.value for setting in self.settings}
        return {**asked, "weights": weights.kind, "checkpoint": weights.step}

    def request(self, weights: Weights) -> dict[str, Any]:
        """Return what decides these images, for request.json.

        Settings at their usual value are not written.
        """
        settings = (s for s in self.settings if s.name in ALWAYS or s.value != s.usual)
        request = {setting.name: setting.value for setting in settings}
        request |= {"weights": weights.kind, "checkpoint": weights.step}
        if runtime.NUMERICS > 1:
            request["numerics"] = runtime.NUMERICS
        return {"version": VERSION, **request}

    def differences(self, saved: Mapping[str, Any], weights: Weights) -> list[str]:
        """Return what tells a stored request, of this version or before, from ours.

        Args:
            saved: the content of a request.json.
            weights: of ours.
        """
        ours = {**self.as_dict(weights), "numerics": runtime.NUMERICS}
        usual = {setting.name: setting.usual for setting in self.settings}
        theirs = {**usual, "numerics": 1, **saved}
        theirs.pop("version", None)
        ours, theirs = (_plain(request) for request in (ours, theirs))
        return [
            f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]

    def tag(self, weights: Weights) -> str:
        """Return the name of the folder: "ddim-50-ema-guidance2-seed0-step3000".

        Most settings at their usual value are not named; the request tells the rest.
        """
        words = {s.name: _word(s) for s in self.settings}
        words["weights"] = weights.kind
        if words.get("respacing"):
            words["steps"] = ""
        rest = [name for name in words if name not in (*FIRST_WORDS, "seed")]
        named = [words[name] for name in (*FIRST_WORDS, *rest) if words.get(name)]
        named += [f"seed{self.seed}", f"step{weights.step}"]
        if runtime.NUMERICS > 1:
            named.append(f"numerics{runtime.NUMERICS}")
        return "-".join(named)


ALWAYS = ("method", "steps", "seed")  # written to request.json at any value
FIRST_WORDS = ("method", "steps", "respacing", "eta", "weights", "guidance_scale")
# How settings are named in a tag, where it is not "<name><value>" of unusual values.
WORDS = {
    "method": lambda s: s.value,
    "steps": lambda s: str(s.value),
    "respacing": lambda s: s.value and "respacing" + s.value.replace(",", "."),
    "guidance_scale": lambda s: f"guidance{s.value:g}",
    "clip": lambda s: "" if s.value else "noclip",
    "dynamic_threshold": lambda s: s.value and f"threshold{s.value:g}",
    "seed": lambda s: f"seed{s.value}",
}


def _word(setting: Setting) -> str:
    if setting.name in WORDS:
        return WORDS[setting.name](setting)
    if setting.value == setting.usual:
        return ""
    return f"{setting.name}{_short(setting.value)}"


def _short(value) -> str:
    """Return "0.5", "3.7" for a few values, a checksum for many."""
    if isinstance(value, int | float):
        return f"{value:g}"
    values = (value,) if isinstance(value, str) else value
    text = ".".join(str(part) for part in values)
    is_plain = all(c.isalnum() or c in ".-_" for c in text)
    if len(values) > MAX_NAMED_VALUES or not is_plain:
        return f"{zlib.crc32(text.encode()):08x}"
    return text


def _frozen(value):
    """Return lists as tuples, at any depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _plain(values):
    """Return values as JSON gives them back: tuples as lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
