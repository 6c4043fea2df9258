"""The recipe: everything that decides image i, but the weights.

A recipe holds numbers, names and tuples only: it is frozen, hashable and JSON both
ways; arrays and networks stand in it by fingerprint. Its settings are what was asked
for, one for each field of config.sampling; its parts are what they mean. It gives

    structure()   what a program is compiled for: names and shapes
    inputs()      what the compiled program is given: path, tables, numbers, seed
    request()     what is kept beside images, and must be equal to add to them
    tag()         the name of their folder

The last two derive from the settings and fingerprints, so that no field can be missing.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.core import conditions, errors, keys
from ddpm_jax.diffusion import guidance, paths, process, reverse, samplers, solvers
from ddpm_jax.sampling import naming
from ddpm_jax.sampling.branches import GUIDANCE, SHARE, other_key
from ddpm_jax.sampling.naming import Setting, Weights
from ddpm_jax.sampling.starts import STARTS
from ddpm_jax.sampling.transforms import CONDITIONS, TRANSFORMS


class Part(NamedTuple):
    """One value that a chain is composed of: its name in a table, and its options."""

    name: str
    options: tuple[tuple[str, float], ...] = ()


def part(name: str, **options: float) -> Part:
    """Return a part; the options are its numbers."""
    return Part(name, tuple(options.items()))


ANCESTRAL = part("ancestral")


def solver_table() -> dict[str, Any]:
    """Return the solvers that recipes name: that sample, and that encode."""
    return {**solvers.SOLVERS, **solvers.ENCODERS}


# ---- what the names of parts stand for -----------------------------------------------

HOOKS = {
    "clip": reverse.clipping,
    "dynamic_threshold": reverse.dynamic_thresholding,
}

RESAMPLED_ROUNDS = 32  # of T entries; T steps gone down 10 times, one by one, are 20

# ---- the recipe ----------------------------------------------------------------------


class Structure(NamedTuple):
    """What a program is compiled for. Recipes of one structure share the program."""

    prediction: str
    variance: str
    shape: tuple[int, ...]
    solver: str
    hooks: tuple[str, ...]
    guidance: tuple[str, ...]
    transforms: tuple[str, ...]
    start: str
    kinds: frozenset[str]
    has_unguided: bool
    shares_noise: bool = False
    computed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything but the weights that decides image i.

    Attributes:
        schedule: the process, respaced to the steps that are taken.
        prediction, variance: what the network's output means.
        shape: of one state, (H, W, C) for images.
        solver: a part named in `solvers.SOLVERS` or `solvers.ENCODERS`.
        settings: what was asked for, field by field.
        hooks: parts named in `HOOKS`, on x̂_0 in this order.
        guidance: parts named in `branches.GUIDANCE`, in this order; () for the plain
            conditional network.
        transforms: parts named in `transforms.TRANSFORMS`, in this order.
        condition: (key, values) of each; the images take the values in turn.
        repeats: images that take a value, or a given picture, before the next one's
            turn comes.
        drawn: (key, n) of conditions that are drawn from 0 … n−1 for each image, the
            same for all keys.
        negative: (key, value) of the branch that guidance leads away from, where it is
            not "no condition".
        start: a name in `starts.STARTS`.
        path: see `diffusion.samplers`; None for every step of the process.
        fingerprints: (name, fingerprint) of the arrays and of the other networks'
            weights that the transforms use.
        seed: decides every draw, together with i.
        computed: keys of the condition, of `transforms.CONDITIONS`, which are computed
            of the arrays.
        shares_noise: whether all images take the draws of image 0, so that nothing but
            their start, condition or transforms tells them apart.
    """

    schedule: process.Schedule
    prediction: str
    variance: str
    shape: tuple[int, ...]
    solver: Part = ANCESTRAL
    settings: tuple[Setting, ...] = ()
    hooks: tuple[Part, ...] = ()
    guidance: tuple[Part, ...] = ()
    transforms: tuple[Part, ...] = ()
    condition: tuple[tuple[str, tuple], ...] = ()
    repeats: int = 1
    drawn: tuple[tuple[str, int], ...] = ()
    negative: tuple[tuple[str, Any], ...] = ()
    start: str = "noise"
    path: tuple | None = None
    fingerprints: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    shares_noise: bool = False
    computed: tuple[str, ...] = ()

    def __post_init__(self):
        errors.choose("sampling method", solver_table(), self.solver.name)
        for hook in self.hooks:
            errors.choose("hook", HOOKS, hook.name)
        for mixing in self.guidance:
            errors.choose("guidance", GUIDANCE, mixing.name)
        errors.choose("start", STARTS, self.start)
        for transform in self.transforms:
            errors.choose("transform", TRANSFORMS, transform.name)
        for key in self.computed:
            errors.choose("computed condition", CONDITIONS, key)

    # ---- making ----

    @property
    def whole_path(self) -> samplers.Path:
        """The path from x_T to the image."""
        if self.path is not None:
            return self.path
        return self.make_solver().path(self.schedule.num_steps)

    @property
    def is_conditional(self) -> bool:
        """Whether the network is given the condition of an image."""
        return "unconditional" not in [part.name for part in self.guidance]

    @property
    def evaluations(self) -> int:
        """The evaluations of the network for one image; a guided one counts once."""
        return sum(kind != paths.RENOISE for _, _, kind, *_ in self.whole_path)

    @property
    def summary(self) -> str:
        """How images are made, in words."""
        return (
            f"{self.solver.name}, {self.schedule.num_steps} steps, "
            f"{self.evaluations} evaluations of the network"
        )

    @property
    def condition_keys(self) -> tuple[str, ...]:
        """The keys of the condition, given or drawn."""
        return tuple(key for key, _ in (*self.condition, *self.drawn))

    def make_solver(self):
        """Return the solver, a value of `diffusion.solvers`."""
        return made(solver_table(), self.solver)

    def make_hooks(self) -> tuple[reverse.X0Hook, ...]:
        """Return the hooks on x̂_0."""
        return tuple(made(HOOKS, hook) for hook in self.hooks)

    def check(self, kept=()) -> None:
        """Refuse parts that do not belong together; every value is on the host here.

        Args:
            kept: positions on the path whose results are wanted.
        """
        reverse.check_parameterisation(
            self.schedule, prediction=self.prediction, variance=self.variance
        )
        denoise = reverse.Denoiser(
            None, None, self.prediction, self.variance, self.make_hooks()
        )
        formed = [TRANSFORMS[part.name] for part in self.transforms]
        if any(transform.form == "score" for transform in formed):
            guidance.check_score_form(self.schedule)
        samplers.check(
            self.schedule.num_steps,
            denoise,
            self.make_solver(),
            self.whole_path,
            [transform for transform in formed if transform.form],
            kept,
        )

    def structure(self) -> Structure:
        """Return what a program is compiled for."""
        return Structure(
            prediction=self.prediction,
            variance=self.variance,
            shape=self.shape,
            solver=self.solver.name,
            hooks=tuple(hook.name for hook in self.hooks),
            guidance=tuple(mixing.name for mixing in self.guidance),
            transforms=tuple(transform.name for transform in self.transforms),
            start=self.start,
            kinds=frozenset(kind for _, _, kind, *_ in self.whole_path),
            has_unguided=not all((*entry, True)[3] for entry in self.whole_path),
            shares_noise=self.shares_noise,
            computed=self.computed,
        )

    def inputs(self) -> dict[str, Any]:
        """Return what a program of this structure is given: host arrays and numbers.

        Tables and path are filled up to the T of the whole process, so that another
        number of steps has the same shapes. "settings" holds the settings that are
        floats, for what no part of the recipe takes; what is not read costs nothing.
        """
        path, length = self.whole_path, self.schedule.original_num_steps
        solver = self.make_solver()
        rounds = max(-(-len(path) // length), getattr(solver, "entries_per_step", 1))
        if any(kind == paths.RENOISE for _, _, kind, *_ in path):
            # Room for any number of steps: resampled paths may be far longer than T.
            rounds = max(rounds, RESAMPLED_ROUNDS)
        return {
            "tables": process.padded_tables(self.schedule, length),
            "entries": samplers.entries(path, rounds * length),
            "count": np.int32(len(path)),
            "solver": solver,
            "hooks": self.make_hooks(),
            "guidance": tuple(_numbers(part) for part in self.guidance),
            "negative": {key: _index(value) for key, value in self.negative},
            "transforms": tuple(_numbers(part) for part in self.transforms),
            "settings": {
                s.name: np.float32(s.value)
                for s in self.settings
                if isinstance(s.value, float)
            },
            "seed": np.uint32(self.seed),
            "repeats": np.int32(self.repeats),
        }

    def requested_condition(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the condition that was asked for, or drawn, by key.

        Args:
            index: [n] of the images.
        """
        turn = index // self.repeats
        given = {
            key: np.asarray(values)[turn % len(values)]
            for key, values in self.condition
        }
        for key, count in self.drawn:
            stream = keys.key_for(self.seed, "sample/label", index=index)
            given[key] = np.asarray(keys.integers_each(stream, count))
        return given

    def condition_of(
        self, index: np.ndarray, specs, more: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the condition of some images.

        A key that the recipe does not have is at its "no condition" value. What
        transforms read stands beside what the network reads.

        Args:
            index: [n] of the images.
            specs: what the network reads, see `core.conditions`.
            more: arrays [n, ...] by key, before what the recipe has of these keys; the
                recipe has their fingerprint, and what nothing reads is left out.

        Raises:
            Refusal: the network reads another condition.
        """
        given = self.requested_condition(index)
        for key in given.keys() & specs.keys():
            given[key] = given[key].astype(specs[key].dtype)
        read = {key for part in self.transforms for key in TRANSFORMS[part.name].reads}
        given |= {k: v for k, v in (more or {}).items() if k in specs or k in read}
        for key in specs.keys() - given.keys():
            spec = specs[key]
            if spec.none is not None and None not in spec.shape:
                shape = (len(index), *spec.shape)
                given[key] = np.full(shape, spec.none, spec.dtype)
        read |= {SHARE, *map(other_key, specs)}
        of_network = {k: v for k, v in given.items() if k in specs or k not in read}
        wanted = {k: spec for k, spec in specs.items() if k not in self.computed}
        conditions.check(wanted, of_network, len(index))
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
        for name in ("hooks", "transforms", "guidance"):
            fields[name] = tuple(Part(*part) for part in fields[name])
        fields["settings"] = tuple(Setting(*s) for s in fields["settings"])
        return cls(**fields)

    # ---- naming: see `sampling.naming` ----

    def as_dict(self, weights: Weights) -> dict[str, Any]:
        """Return every setting by name, and which weights: what cards tell."""
        return naming.as_dict(self.settings, self.fingerprints, weights)

    def request(self, weights: Weights) -> dict[str, Any]:
        """Return what decides these images, for request.json."""
        return naming.request(self.settings, self.fingerprints, weights)

    def differences(self, saved: Mapping[str, Any], weights: Weights) -> list[str]:
        """Return what tells a stored request, of this version or before, from ours."""
        return naming.differences(saved, self.settings, self.fingerprints, weights)

    def tag(self, weights: Weights) -> str:
        """Return the name of the images' folder."""
        return naming.tag(self.settings, weights)


def made(table, part: Part):
    """Return what a part stands for in a table of functions."""
    make, options = table[part.name], dict(part.options)
    takes = inspect.signature(make).parameters
    unknown = sorted(options.keys() - takes.keys())
    if unknown:
        raise errors.Refusal(
            f"{part.name!r} takes no option {unknown[0]!r}: choose among "
            f"{', '.join(takes) or 'none'}"
        )
    return make(**options)


def _numbers(part: Part) -> dict[str, np.float32]:
    return {name: np.float32(value) for name, value in part.options}


def _index(value) -> np.ndarray:
    """Return integers in the 32 bits that every program takes, truth values as such."""
    array = np.asarray(value)
    return array if array.dtype == np.bool_ else array.astype(np.int32)


def _frozen(value):
    """Return lists as tuples, at any depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
