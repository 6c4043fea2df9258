"""The compiled sampler: sharded over the mesh, and image i is image i.

What image i looks like depends on the recipe (its seed among it), the weights and i:
not on the batch that it is made in, the number of devices, or a restart. Numbers of the
recipe are inputs of the program: another number of steps, scale, η or seed compiles
nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, keys
from ddpm_jax.diffusion import process, reverse, samplers
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import branches, starts, transforms
from ddpm_jax.sampling.recipe import Recipe, Structure


class Made(NamedTuple):
    """Images on the host, and what they looked like on the way.

    Attributes:
        images: float32 [n, ...], about [−1, 1].
        states: float32 [S, n, ...], x_t after the kept positions of the path.
        estimates: float32 [S, n, ...], x̂_0 at these positions.
    """

    images: np.ndarray
    states: np.ndarray
    estimates: np.ndarray


class Step(NamedTuple):
    """Images under way, on the host.

    Attributes:
        done: entries of the path that are made.
        whole: entries of the path.
        state: float32 [n, ...], x_t; after the last entry the images.
        estimate: float32 [n, ...], x̂_0 of the last entry made.
    """

    done: int
    whole: int
    state: np.ndarray
    estimate: np.ndarray


class Sampler:
    """A recipe with its network and devices."""

    def __init__(
        self,
        recipe: Recipe,
        network,
        mesh,
        *,
        trajectory: Sequence[int] = (),
        arrays: Mapping[str, Any] | None = None,
        others: Mapping[str, tuple] | None = None,
        given: Callable[[np.ndarray], Mapping] | None = None,
    ):
        """Check the recipe and prepare its inputs; nothing is compiled yet.

        Args:
            recipe: what decides the images.
            network: has `apply(params, x, t, condition)`, `prepare(params, condition)`
                and `condition_spec`; see `models.functional.Network`.
            mesh: devices to share each batch.
            trajectory: positions on the path whose results are kept.
            arrays: what the transforms of the recipe use, by name.
            others: networks that they use, by name: (network, parameters).
            given: numbers of images [n] → arrays [n, ...] by key of their condition,
                for what is too large to stand in a recipe, which has its fingerprint.

        Raises:
            Refusal: parts of the recipe that do not belong together.
        """
        recipe.check(kept=trajectory)
        _check_named(recipe, {*(arrays or {}), *(others or {})})
        self.recipe, self.network, self.mesh = recipe, network, mesh
        self._given = given
        others = others or {}
        networks = tuple((name, other) for name, (other, _) in others.items())
        self._program = compiled(recipe.structure(), network, networks)
        self._parts = lambda: compiled(recipe.structure(), network, networks, _parts)
        self._inputs = {
            **recipe.inputs(),
            "kept": np.asarray(trajectory, np.int32),
            "arrays": dict(arrays or {}),
            "params": {name: params for name, (_, params) in others.items()},
        }

    def make(
        self,
        params,
        *,
        start: int,
        stop: int,
        batch_size: int,
        on_step: Callable[[Step], None] | None = None,
    ) -> Made:
        """Make images start … stop−1 in one batch of fixed size.

        Args:
            params: parameters on the mesh.
            start, stop: at most `batch_size` apart.
            batch_size: compiled size, a multiple of the devices; the rest is padding.
            on_step: called after every path entry; what it raises ends the chain.
        """
        count = stop - start
        if on_step is None:
            batch = self._batch(start, stop, batch_size)
            chain = self._program(params, self._inputs, *batch)
            found = chain.x, chain.trajectory, chain.trajectory_x_0
        else:
            for made in self._under_way(params, start, stop, batch_size, 1):
                on_step(made[1])
            chain, _ = made
            found = chain.x, chain.states[:-1], chain.estimates[:-1]
        images = sharding.to_host(found[0])[:count]
        if not len(self._inputs["kept"]):
            empty = np.zeros((0, *images.shape), np.float32)
            return Made(images, empty, empty)
        return Made(images, *(sharding.to_host(s)[:, :count] for s in found[1:]))

    def steps(
        self, params, *, start: int, stop: int, batch_size: int, every: int = 1
    ) -> Iterator[Step]:
        """Yield what `make` tells; the state of the last one is what it returns.

        A chain whose iterator is closed ends there.

        Args:
            params, start, stop, batch_size: see `make`.
            every: entries between two of them; another number compiles nothing.
        """
        for _, step in self._under_way(params, start, stop, batch_size, every):
            yield step

    def _under_way(self, params, start, stop, batch_size, every):
        """Yield (chain, Step); the last position of every stretch is kept too."""
        batch, count = self._batch(start, stop, batch_size), stop - start
        whole, chain = int(self._inputs["count"]), None
        begin, go_on = self._parts()
        for done in range(0, whole, every):
            end = min(done + every, whole)
            kept = np.append(self._inputs["kept"], np.int32(end - 1))
            inputs = {**self._inputs, "kept": kept}
            if chain is None:
                chain = begin(params, inputs, *batch)
            stretch = np.int32(done), np.int32(end)
            chain = go_on(params, inputs, *batch, chain, *stretch)
            state, estimate = (
                sharding.to_host(a)[:count] for a in (chain.x, chain.estimates[-1])
            )
            yield chain, Step(end, whole, state, estimate)

    def _batch(self, start, stop, batch_size):
        """Return numbers and condition of images on the mesh."""
        index = arrays.padded_range(start, batch_size, stop)
        index = index.astype(np.int32)
        condition = self.condition_of(index)
        batch = {"index": index, "condition": condition}
        batch = sharding.put_whole(self.mesh, batch)
        return batch["index"], batch["condition"]

    def condition_of(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the condition of the images with these numbers, see `Recipe`."""
        more = self._given(index) if self._given is not None else None
        return self.recipe.condition_of(index, self.network.condition_spec, more)

    def seconds_per_entry(self, params, batch_size: int) -> float:
        """Return how long one entry of the path takes for a batch, compiled before.

        Args:
            params: parameters on the mesh.
            batch_size: compiled size, a multiple of the devices.
        """
        inputs, self._inputs = self._inputs, {**self._inputs, "count": np.int32(1)}
        try:
            for _ in range(2):  # the first one compiles
                began = time.perf_counter()
                self.make(params, start=0, stop=1, batch_size=batch_size)
                taken = time.perf_counter() - began
        finally:
            self._inputs = inputs
        return taken

    def lower(self, params, index, condition) -> jax.stages.Lowered:
        """Return the program lowered for a batch, see `jax.jit`."""
        return self._program.lower(params, self._inputs, index, condition)

    def arguments(self, params, index, condition) -> tuple:
        """Return the arguments of the program that `lower` gives."""
        return params, self._inputs, index, condition


def _check_named(recipe, names):
    """Refuse arrays and networks that the recipe, and so the request, does not name."""
    unnamed = sorted(names - dict(recipe.fingerprints).keys())
    if unnamed:
        raise ValueError(
            f"{unnamed[0]!r} changes images and has no fingerprint in the recipe"
        )


def compiled(structure: Structure, network, others: tuple = (), make=None):
    """Return the program of a structure, compiled once for a network.

    The network keeps its programs, so that they go when it goes.

    Args:
        structure: from `Recipe.structure`.
        network: compared by identity.
        others: (name, network) of those that guide it.
        make: `_parts` for a chain in two parts; None for the whole chain.
    """
    programs = vars(network).setdefault("_sampling_programs", {})
    key = (structure, others, make)
    if key not in programs:
        programs[key] = (make or _program)(structure, network, others)
    return programs[key]


def _program(structure: Structure, network, others: tuple):
    """Return the jitted `(params, inputs, index, condition) → samplers.Sampled`."""

    def sample(params, inputs, index, condition):
        loop, x = _prepared(
            structure, network, others, params, inputs, index, condition
        )
        return samplers.run(loop, x, inputs["entries"], inputs["count"])

    return jax.jit(sample)


def _parts(structure: Structure, network, others: tuple):
    """Return the same in two parts: a chain begun, and a stretch of its path made.

    Returns:
        `(params, inputs, index, condition) → samplers.Chain`, and with (chain, begin,
        end) after these, the chain after the entries begin … end−1.
    """

    def first(*given):
        loop, x = _prepared(structure, network, others, *given)
        return loop.start(x, given[1]["entries"].t[0])

    def go_on(params, inputs, index, condition, chain, begin, end):
        given = params, inputs, index, condition
        loop, _ = _prepared(structure, network, others, *given)
        return samplers.go_on(loop, chain, inputs["entries"], begin, end)

    return jax.jit(first), jax.jit(go_on)


def _prepared(structure, network, others, params, inputs, index, condition):
    """Return what every entry of the path works with, and the first state."""
    draws = process.GAUSSIAN
    seed, shape = inputs["seed"], structure.shape
    drawn = jnp.zeros_like(index) if structure.shares_noise else index

    def noise_of(purpose):
        stream = keys.key_for(seed, purpose, index=drawn)
        return lambda position: draws.noise_each(
            keys.fold_in_each(stream, position), shape
        )

    tools = transforms.Tools(
        tables=inputs["tables"],
        index=index,
        turn=index // inputs["repeats"],
        condition=condition,
        arrays=inputs["arrays"],
        networks={},
    )
    computed = {k: transforms.CONDITIONS[k](tools) for k in structure.computed}
    condition = {**condition, **computed}
    main = branches.Given.of(network, params, condition)
    given = {
        name: branches.Given.of(other, inputs["params"][name], condition)
        for name, other in others
    }
    networks = {name: other.alone() for name, other in given.items()}
    tools = tools._replace(condition=condition, networks=networks)
    loop = loop_of(structure, inputs, tools, main, given, noise_of)
    x_T = first_state(inputs, drawn, shape)
    first = jnp.full(len(index), inputs["entries"].t[0])
    return loop, starts.STARTS[structure.start](tools, x_T, first)


def first_state(inputs, index, shape) -> jax.Array:
    """Return x_T [B, *shape] of the images with these numbers.

    Args:
        inputs: of the program, from `Recipe.inputs`.
        index: int32 [B].
        shape: of one state.
    """
    start = keys.key_for(inputs["seed"], "sample/x_T", index=index)
    x_T = process.GAUSSIAN.x_T_each(start, shape)
    if "temperature" in inputs["settings"]:
        x_T = x_T * inputs["settings"]["temperature"]
    return x_T


def loop_of(
    structure: Structure, inputs, tools, main, given, noise_of
) -> samplers.Loop:
    """Return what every entry of the path works with.

    Args:
        structure: from `Recipe.structure`.
        inputs: of the program.
        tools: of transforms.
        main: the network, `branches.Given`.
        given: others by name, likewise.
        noise_of: purpose → noise function.
    """
    by_place = transforms.made(structure.transforms, inputs["transforms"], tools)

    def denoiser(names, numbers):
        def guided(main):
            return branches.network(
                main,
                names,
                numbers,
                negative_values=inputs["negative"],
                weaker=given.get(branches.WEAKER),
            )

        denoise = reverse.Denoiser(
            tools.tables,
            branches.between(guided, main, tools.condition),
            structure.prediction,
            structure.variance,
            inputs["hooks"],
        )
        for transform in by_place[transforms.DENOISER]:
            denoise = transform(denoise)
        return denoise

    return samplers.Loop(
        tables=tools.tables,
        denoise=denoiser(structure.guidance, inputs["guidance"]),
        solver=inputs["solver"],
        noise_fn=starts.noise_fn(tools) or noise_of("sample/noise"),
        kept=inputs["kept"],
        kinds=structure.kinds,
        plain=denoiser((), ()) if structure.has_unguided else None,
        prediction_transforms=by_place[transforms.PREDICTION],
        step_transforms=by_place[transforms.STEP],
        transform_noise_fns=[
            noise_of(f"sample/transform/{k}")
            for k in range(len(by_place[transforms.STEP]))
        ],
    )


def rounded_batch(batch_size: int, mesh) -> int:
    """Return the smallest multiple of the number of devices that holds the batch."""
    return -(-batch_size // mesh.size) * mesh.size
