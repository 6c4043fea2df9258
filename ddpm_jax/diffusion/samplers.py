"""Chains: a solver under one compiled loop over an explicit path.

A path is a list of (t, t_next, kind), or (t, t_next, kind, guided). Kind "step"
evaluates the network at (x_t, t) and moves to t_next; t_next = −1 means ᾱ = 1 and no
noise. "predict" and "correct" are the two halves of a step of solvers that evaluate
twice. "renoise" jumps upward with a draw of q(x_{t_next} | x_t), without the network.
Where guided is False, the plain network is evaluated instead of the guided one, and
prediction transforms do not act.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors, flags
from ddpm_jax.core.types import NoiseFn
from ddpm_jax.diffusion import placement, process, reverse
from ddpm_jax.diffusion.paths import (
    CORRECT,
    KINDS,
    RENOISE,
    STEP,
    encoding_path,
    sampling_path,
)
from ddpm_jax.diffusion.solvers import ancestral, ddim, reverse_ddim

__all__ = [
    "Entries",
    "Loop",
    "Sampled",
    "ancestral",
    "check",
    "ddim",
    "encoding_path",
    "entries",
    "go_on",
    "reverse_ddim",
    "run",
    "sample",
    "sampling_path",
]

Path = Sequence[tuple]
PredictionTransform = Callable[
    [jax.Array, jax.Array, reverse.Prediction], reverse.Prediction
]
StepTransform = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(x, t_next, noise) → x`, on x_T first and after every "step" and "correct"."""


# ---- paths ---------------------------------------------------------------------------


class Entries(NamedTuple):
    """A path as arrays [N]: int32 t, t_next, index of the kind; bool guided."""

    t: jax.Array
    t_next: jax.Array
    kind: jax.Array
    guided: jax.Array


def entries(path: Path, length: int | None = None) -> Entries:
    """Return a checked path as host arrays.

    Args:
        path: entries of three or four.
        length: of the arrays; what is too long for the path is never read.
    """
    rows = [(t, n, KINDS.index(kind), *more, True)[:4] for t, n, kind, *more in path]
    columns = np.asarray(rows, np.int32).T
    if length is not None:
        columns = np.pad(columns, ((0, 0), (0, length - len(path))), mode="edge")
    t, t_next, kind, guided = columns
    return Entries(t, t_next, kind, guided.astype(bool))


# ---- the loop ------------------------------------------------------------------------


class Sampled(NamedTuple):
    """The end of a chain, and what it looked like on the way.

    `x` [B, ..., C] is the final state (x_0 after a sampling path). `trajectory` and
    `trajectory_x_0` [S, B, ..., C] hold the state after each requested position and
    the x̂_0 of that position; they are None where none was requested.
    """

    x: jax.Array
    trajectory: jax.Array | None
    trajectory_x_0: jax.Array | None

    @property
    def x_0(self) -> jax.Array:
        """The final state, by the name that it has after a sampling path."""
        return self.x


class Chain(NamedTuple):
    """A chain under way: state, what the solver keeps, snapshots [S, B, ..., C]."""

    x: jax.Array
    carry: Any
    states: jax.Array
    estimates: jax.Array


class Loop(NamedTuple):
    """What every entry of a path works with; see `sample` for the arguments.

    Attributes:
        plain: the denoiser of entries that are not guided; None where all are.
        kept: int32 [S], positions whose results are kept.
        kinds: the kinds that the path has, as the program is compiled for these alone.
    """

    tables: process.Tables
    denoise: reverse.Denoiser
    solver: Any
    noise_fn: NoiseFn
    kept: Any
    kinds: frozenset = frozenset((STEP,))
    plain: reverse.Denoiser | None = None
    prediction_transforms: Sequence[PredictionTransform] = ()
    step_transforms: Sequence[StepTransform] = ()
    transform_noise_fns: Sequence[NoiseFn] = ()

    def start(self, x_T, t) -> Chain:
        """Return the chain at x_T [B, ..., C], before the entry that starts at t."""
        if x_T.dtype.itemsize < 4:
            x_T = x_T.astype(jnp.float32)  # as the tables, which the next states have
        x = self._transformed(x_T, jnp.full(x_T.shape[0], t), 0)
        # Made of x, so that they lie on a mesh as it does; every entry is replaced.
        unset = jnp.broadcast_to(x, (len(self.kept), *x.shape))
        return Chain(x, self.solver.init(x), unset, unset)

    def advance(self, chain: Chain, position, entry: Entries) -> Chain:
        """Return the chain after one entry of the path."""
        x, carry = chain.x, chain.carry
        t, t_next = (jnp.full(x.shape[0], v) for v in (entry.t, entry.t_next))
        noise = self.noise_fn(position)

        def move():
            prediction = self._predict(x, t, entry.guided)
            moved = self.solver.step(
                carry,
                self.tables,
                x,
                prediction,
                t,
                t_next,
                noise,
                kind=entry.kind,
            )
            return *moved, prediction.x_0

        def jump():
            return carry, *_renoise(self.tables, x, t, t_next, noise)

        if RENOISE in self.kinds:
            is_jump = entry.kind == KINDS.index(RENOISE)
            carry, after, x_0 = jax.lax.cond(is_jump, jump, move)
        else:
            carry, after, x_0 = move()
        if self.step_transforms:
            transformed = self._transformed(after, t_next, position + 1)
            complete = [KINDS.index(kind) for kind in (STEP, CORRECT)]
            is_complete = jnp.isin(entry.kind, jnp.asarray(complete))
            after = jnp.where(is_complete, transformed, after)
        wanted = (self.kept == position).reshape((-1,) + (1,) * x.ndim)
        result = Chain(
            after,
            carry,
            jnp.where(wanted, after, chain.states),
            jnp.where(wanted, x_0, chain.estimates),
        )
        # The types stay those of the start, whatever noise and network return.
        return jax.tree.map(lambda new, old: new.astype(old.dtype), result, chain)

    def _predict(self, x, t, is_guided):
        def guided(x, t):
            prediction = self.denoise(x, t)
            for prediction_transform in self.prediction_transforms:
                prediction = prediction_transform(x, t, prediction)
            return prediction

        if self.plain is None:
            return guided(x, t)
        return jax.lax.cond(is_guided, guided, self.plain, x, t)

    def _transformed(self, x, t_next, position):
        pairs = zip(self.step_transforms, self.transform_noise_fns, strict=True)
        for step_transform, noise_fn in pairs:
            x = step_transform(x, t_next, noise_fn(position))
        return x


@flags.as_written()
def sample(
    tables: process.Tables,
    denoise: reverse.Denoiser,
    *,
    step,
    x_T,
    noise_fn: NoiseFn,
    plain: reverse.Denoiser | None = None,
    denoiser_transforms: Sequence[reverse.DenoiserTransform] = (),
    prediction_transforms: Sequence[PredictionTransform] = (),
    step_transforms: Sequence[StepTransform] = (),
    transform_noise_fn: NoiseFn | Sequence[NoiseFn] | None = None,
    path: Path | None = None,
    trajectory: Sequence[int] | None = None,
) -> Sampled:
    """Run a chain along a path as one compiled scan.

    Args:
        tables: the (respaced) process.
        denoise: `(x_t, t) → Prediction`.
        step: a solver, such as `ancestral()`, `ddim(eta)` or `reverse_ddim()`.
        x_T: [B, ..., C], the state at the first t of the path.
        noise_fn: position on the path → noise [B, ..., C]; drawn for the last
            position too, where it is not used.
        plain: the denoiser of entries whose fourth part, guided, is False.
        denoiser_transforms: denoiser → denoiser, in order, before the next.
        prediction_transforms: guidance, in order; its form must fit the step.
        step_transforms: act on the state; see `StepTransform`.
        transform_noise_fn: the noise of a single one, or one function for each;
            position 0 is x_T, position k+1 follows position k of the path.
        path: the solver's own by default.
        trajectory: positions on the path whose results are kept; memory is that of
            the kept ones, whatever the number of steps.

    Raises:
        Refusal: step, path, transforms and hooks that do not belong together, or a
            denoiser of another process than the tables.
    """
    path = tuple(step.path(tables.num_steps) if path is None else path)
    kept = np.asarray(() if trajectory is None else trajectory, np.int32)
    process.check_floats("x_T", x_T)
    check(tables.num_steps, denoise, step, path, prediction_transforms, kept)
    for one in (denoise, plain):
        reverse.check_process(tables, one)
    given = transform_noise_fn
    noise_fns = (given,) if callable(given) else tuple(given or ())
    if len(noise_fns) < len(step_transforms):
        raise errors.Refusal(
            f"{len(step_transforms)} step_transforms and {len(noise_fns)} streams of "
            "noise in transform_noise_fn: give them a noise stream each"
        )
    if plain is None and not all((*entry, True)[3] for entry in path):
        raise errors.Refusal(
            "a path with entries that are not guided, and no plain denoiser: give one"
        )
    for denoiser_transform in denoiser_transforms:
        denoise = denoiser_transform(denoise)
        plain = None if plain is None else denoiser_transform(plain)
    loop = Loop(
        tables,
        denoise,
        step,
        noise_fn,
        kept,
        frozenset(kind for _, _, kind, *_ in path),
        plain,
        prediction_transforms,
        step_transforms,
        noise_fns[: len(step_transforms)],
    )

    def body(chain, numbered):
        return loop.advance(chain, *numbered), None

    numbered = (np.arange(len(path), dtype=np.int32), entries(path))
    numbered = jax.tree.map(arrays.on_device, numbered)
    chain = placement.settled(
        loop.start(jnp.asarray(x_T), path[0][0]),
        lambda chain: body(chain, jax.tree.map(lambda values: values[0], numbered))[0],
    )
    chain, _ = jax.lax.scan(body, chain, numbered)
    if trajectory is None:
        return Sampled(chain.x, None, None)
    return Sampled(chain.x, chain.states, chain.estimates)


def run(loop: Loop, x_T, path: Entries, count) -> Sampled:
    """Run a chain whose path is data: any path of at most N entries, compiled once.

    Nothing is checked here, where all values may be traced: see `check`.

    Args:
        loop: what the entries work with.
        x_T: [B, ..., C], the state at the first t of the path.
        path: from `entries`, N of them.
        count: int32, how many of them there are.
    """
    chain = go_on(loop, loop.start(x_T, path.t[0]), path, 0, count)
    return Sampled(chain.x, chain.states, chain.estimates)


def go_on(loop: Loop, chain: Chain, path: Entries, begin, end) -> Chain:
    """Return a chain after the entries begin … end−1 of its path, see `run`."""

    def body(position, chain):
        entry = jax.tree.map(lambda values: values[position], path)
        return loop.advance(chain, position, entry)

    return jax.lax.fori_loop(begin, end, body, chain)


def _renoise(tables, x, t, t_next, noise):
    """Draw q(x_{t_next} | x_t) for t_next > t; x stands in for x̂_0 in snapshots."""
    log_ratio = tables.log_alpha_bar[t_next] - tables.log_alpha_bar[t]
    log_ratio = arrays.expand_to(log_ratio, x)
    noisy = jnp.exp(0.5 * log_ratio) * x + jnp.sqrt(-jnp.expm1(log_ratio)) * noise
    return noisy, x


def check(
    num_steps: int, denoise, step, path: Path, prediction_transforms=(), kept=()
) -> None:
    """Refuse a path, a solver, hooks and transforms that do not belong together.

    Args:
        num_steps: T′.
        denoise: a `reverse.Denoiser`; others pass.
        step: a solver.
        path: from its first entry to its last.
        prediction_transforms: guidance.
        kept: positions of the trajectory.
    """
    if not path:
        raise errors.Refusal("an empty path: give at least one (t, t_next, kind)")
    last = num_steps - 1
    known = ", ".join(repr(kind) for kind in KINDS)
    for t, t_next, kind, *_ in path:
        if kind not in KINDS:
            raise errors.Refusal(f"unknown kind {kind!r}: choose one of {known}")
        if not (0 <= t <= last and -1 <= t_next <= last):
            raise errors.Refusal(
                f"path entry ({t}, {t_next}): t lies in 0 … {last}, t_next in −1 … "
                f"{last}"
            )
        if kind == RENOISE and t_next <= t:
            raise errors.Refusal(
                f"'renoise' from t = {t} to {t_next}: it adds noise, so t_next must "
                "be larger"
            )
        kinds = (RENOISE, *getattr(step, "kinds", (STEP,)))
        if kind not in kinds:
            raise errors.Refusal(
                f"a {kind!r} entry with {type(step).__name__}: its entries are "
                f"{' or '.join(map(repr, kinds))}"
            )
    for (_, reached, *_), (t, *_) in itertools.pairwise(path):
        if t != reached:
            raise errors.Refusal(
                f"a path that reaches t = {reached} and goes on from {t}: start every "
                "entry where the one before ends"
            )
    step.check_path(path)
    for prediction_transform in prediction_transforms:
        form = "mean" if step.reads == "mean" else "score"
        if getattr(prediction_transform, "form", form) != form:
            raise errors.Refusal(
                f"guidance in {prediction_transform.form!r} form with a step that "
                f"reads the {step.reads}: use form {form!r}"
            )
    if step.reads == "mean" and getattr(denoise, "hooks_miss_mean", False):
        raise errors.Refusal(
            "a hook on x_0 with prediction 'x_prev' and ancestral steps: the mean is "
            "the network's own and the hook would have no effect; use a DDIM step"
        )
    kept = np.asarray(kept)
    if kept.size and not np.all((kept >= 0) & (kept < len(path))):
        raise errors.Refusal(
            f"trajectory positions {kept.tolist()}: choose among 0 … {len(path) - 1}"
        )
