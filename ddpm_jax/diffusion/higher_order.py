"""Deterministic solvers of second order, on the timesteps that the network has seen.

They solve the probability-flow equation that DDIM with η = 0 solves to first order, so
the same x_T leads to nearly the same image in fewer evaluations of the network. With
α = √ᾱ, σ = √(1−ᾱ) and λ = log(α/σ), half the logarithm of the signal-to-noise ratio:

    heun      Karras et al. 2022, algorithm 1 without noise, in x/α against σ/α
    dpmpp_2s  Lu et al. 2022 (DPM-Solver++), algorithm 1
    dpmpp_2m  Lu et al. 2022 (DPM-Solver++), algorithm 2

Each is written as DDIM's move plus a term of second order. Therefore the first halves
of heun and dpmpp_2s, and every move without a history, are DDIM's moves to the bit.
Some moves stay of first order: the last one, to ᾱ = 1, where λ = ∞; one from ᾱ = 0,
where λ = −∞; and the first one of dpmpp_2m after x_T or after noise was added.

What differs from other programs: the network is evaluated at kept timesteps of the
process alone. The middle of dpmpp_2s is therefore the timestep between two others, and
not the middle in λ. On the same timesteps heun and dpmpp_2m give what `diffusers` does,
whose tables are float32 sums; its own spacings choose other timesteps.

The usual spacing of heun and dpmpp_2s is the one that gave the nearest samples on
digits at 10 to 20 evaluations; that of dpmpp_2m is its paper's.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays, errors
from ddpm_jax.diffusion import process
from ddpm_jax.diffusion.paths import (
    CORRECT,
    KINDS,
    PREDICT,
    STEP,
    encoding_path,
    sampling_path,
)

_value = functools.partial(
    jax.tree_util.register_dataclass, data_fields=[], meta_fields=[]
)
_directed = functools.partial(
    jax.tree_util.register_dataclass, data_fields=[], meta_fields=["upward"]
)


class SecondOrder:
    """What the solvers of this file share.

    Attributes:
        method: its name in `solvers.SOLVERS`.
        min_steps: the smallest number of steps at which any move is of second order.
        spacing: the usual one of `respacing.SPACINGS`.
        entries_per_step: how many entries of a path there are to a timestep, at most.
        upward: whether it goes from t = 0 to T′−1, which encodes an image; the moves
            are the same, from smaller to larger noise.
    """

    reads = "score"
    kinds = (STEP, PREDICT, CORRECT)
    spacing = "even"
    entries_per_step = 1
    upward = False

    def path(self, num_steps):
        """Return the entries of a whole chain of `num_steps` kept timesteps.

        Raises:
            Refusal: fewer than `min_steps`.
        """
        if num_steps < self.min_steps:
            raise errors.Refusal(
                f"{self.method} with {num_steps} steps has no move of second order: "
                f"take at least {self.min_steps} steps, or the method 'ddim'"
            )
        return self._path(num_steps)

    def check_path(self, path):
        """Refuse moves the wrong way, and halves that do not belong together."""
        kinds = (STEP, *(kind for _, _, kind, *_ in path), STEP)
        for before, after in itertools.pairwise(kinds):
            if (before == PREDICT) != (after == CORRECT):
                raise errors.Refusal(
                    f"a path of {self.method} with {before!r} and then {after!r}: "
                    "'correct' comes right after 'predict', and nowhere else"
                )
        for t, t_next, kind, *_ in path:
            if kind in (STEP, PREDICT) and self.upward and t_next <= t:
                raise errors.Refusal(
                    f"{self.method} that encodes, from t = {t} down to {t_next}: it "
                    "goes upward only; sample with the solver of that name"
                )
            if kind in (STEP, PREDICT) and not self.upward and t_next >= t:
                raise errors.Refusal(
                    f"{self.method} from t = {t} up to {t_next}: it goes downward "
                    "only; use reverse_ddim() to encode, or kind 'renoise' to add noise"
                )
            if kind == CORRECT and not self._ends(t, t_next):
                raise errors.Refusal(
                    f"'correct' of {self.method} from t = {t} to {t_next}: "
                    f"{self.correction}"
                )


@_directed
@dataclasses.dataclass(frozen=True)
class Heun(SecondOrder):
    """The trapezoidal rule for x/α against σ/α: two evaluations a step.

    x_n = x̃_n + ½ α_n (σ_n/α_n − σ_t/α_t)(ε̂(x̃_n, n) − ε̂(x_t, t)), with DDIM's x̃_n
    (Karras et al. 2022, algorithm 1, lines 5 to 8). A step is (t, n, "predict"), then
    (n, n, "correct").
    """

    upward: bool = False
    method = "heun"
    min_steps = 2
    spacing = "logsnr"
    entries_per_step = 2
    correction = "it stays at the timestep that 'predict' reached"

    def _path(self, num_steps):
        ends = encoding_path(num_steps) if self.upward else sampling_path(num_steps)
        moves = [
            ((t, n, PREDICT), (n, n, CORRECT)) for t, n, _ in ends if min(t, n) >= 0
        ]
        return (*itertools.chain(*moves), *(() if self.upward else ends[-1:]))

    def _ends(self, t, t_next):
        return t_next == t

    def init(self, x):
        """Return the noise that was predicted last, and where."""
        return jnp.zeros_like(x), jnp.zeros(len(x), jnp.int32)

    def step(self, carry, tables, x_t, prediction, t, t_next, noise, *, kind):
        """Return the carry and the state after one half of a step."""
        del noise
        noise_before, t_before = carry
        gap = half_logsnr(tables, t) - half_logsnr(tables, t_before)
        # α_n (σ_n/α_n − σ_t/α_t) = σ_n (1 − exp(λ_n − λ_t))
        weight = -0.5 * tables.sqrt_one_minus_alpha_bar[t] * jnp.expm1(gap)
        change = _scaled(weight, prediction.noise - noise_before)
        moved = first_order(tables, prediction.x_0, prediction.noise, t_next)
        x = jnp.where(_is_correction(kind), x_t + change, moved)
        return (prediction.noise, t), x


@_directed
@dataclasses.dataclass(frozen=True)
class DpmPp2M(SecondOrder):
    """DPM-Solver++(2M): a straight line in λ through this x̂_0 and the one before.

    x_n = (σ_n/σ_t) x_t − α_n (e^{−h} − 1) D, h = λ_n − λ_t, r = h_before/h,
    D = x̂_0 + (x̂_0 − x̂_0,before) / (2r)              (Lu et al. 2022, algorithm 2).
    One evaluation a step.
    """

    upward: bool = False
    method = "dpmpp_2m"
    kinds = (STEP,)
    min_steps = 3
    spacing = "logsnr"

    def _path(self, num_steps):
        return encoding_path(num_steps) if self.upward else sampling_path(num_steps)

    def init(self, x):
        """Return the last x̂_0, where it was predicted, and which t was reached."""
        nowhere = jnp.full(len(x), -1, jnp.int32)
        return jnp.zeros_like(x), jnp.zeros(len(x), jnp.int32), nowhere

    def step(self, carry, tables, x_t, prediction, t, t_next, noise, *, kind):
        """Return the carry and the next state."""
        del x_t, noise, kind
        x_0_before, t_before, reached = carry
        h = half_logsnr(tables, t_next) - half_logsnr(tables, t)
        h_before = half_logsnr(tables, t) - half_logsnr(tables, t_before)
        sqrt_next = tables.sqrt_alpha_bar[jnp.maximum(t_next, 0)]
        # A renoised state has another history than the x̂_0 that was kept.
        has_history = (reached == t) & (t_next >= 0)
        weight = -sqrt_next * jnp.expm1(-h) * h / (2 * h_before)
        weight = jnp.where(has_history, weight, 0.0)
        moved = first_order(tables, prediction.x_0, prediction.noise, t_next)
        x = moved + _scaled(weight, prediction.x_0 - x_0_before)
        return (prediction.x_0, t, t_next), x


@_value
@dataclasses.dataclass(frozen=True)
class DpmPp2S(SecondOrder):
    """DPM-Solver++(2S): a straight line in λ through x̂_0 at t and in the middle, s.

    x_n = (σ_n/σ_t) x_t − α_n (e^{−h} − 1) D, h = λ_n − λ_t, r = (λ_s − λ_t)/h,
    D = x̂_0 + (x̂_0(x̃_s, s) − x̂_0) / (2r), with DDIM's x̃_s
    (Lu et al. 2022, algorithm 1). A step is (t, s, "predict"), then (s, n, "correct"),
    and goes over two kept timesteps; where their number is even, the first move of all
    is DDIM's alone.
    """

    method = "dpmpp_2s"
    min_steps = 3
    correction = "it goes on downward, and the last move, to −1, is a 'step'"

    def _path(self, num_steps):
        first = num_steps - 1
        path = [] if first % 2 == 0 else [(first, first - 1, STEP)]
        for t in range(first - first % 2, 0, -2):
            path += [(t, t - 1, PREDICT), (t - 1, t - 2, CORRECT)]
        return (*path, (0, -1, STEP))

    def _ends(self, t, t_next):
        return 0 <= t_next < t

    def init(self, x):
        """Return x̂_0 and noise that were predicted last, and where."""
        return jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros(len(x), jnp.int32)

    def step(self, carry, tables, x_t, prediction, t, t_next, noise, *, kind):
        """Return the carry and the state after one half of a step."""
        del x_t, noise
        x_0_before, noise_before, t_before = carry
        h = half_logsnr(tables, t_next) - half_logsnr(tables, t_before)
        h_middle = half_logsnr(tables, t) - half_logsnr(tables, t_before)
        sqrt_next = tables.sqrt_alpha_bar[jnp.maximum(t_next, 0)]
        weight = -sqrt_next * jnp.expm1(-h) * h / (2 * h_middle)
        moved = first_order(tables, prediction.x_0, prediction.noise, t_next)
        whole = first_order(tables, x_0_before, noise_before, t_next)
        whole = whole + _scaled(weight, prediction.x_0 - x_0_before)
        # From ᾱ = 0, where h is infinite, both halves are moves of first order.
        is_whole = _is_correction(kind) & arrays.expand_to(jnp.isfinite(h), whole)
        return (prediction.x_0, prediction.noise, t), jnp.where(is_whole, whole, moved)


def heun() -> Heun:
    """Return Heun's method, of two evaluations a step."""
    return Heun()


def dpmpp_2m() -> DpmPp2M:
    """Return DPM-Solver++ with memory, of one evaluation a step."""
    return DpmPp2M()


def reverse_heun() -> Heun:
    """Return Heun's method upward, which encodes an image."""
    return Heun(upward=True)


def reverse_dpmpp_2m() -> DpmPp2M:
    """Return DPM-Solver++ with memory upward, which encodes an image."""
    return DpmPp2M(upward=True)


def dpmpp_2s() -> DpmPp2S:
    """Return DPM-Solver++ without memory, of two evaluations for two moves."""
    return DpmPp2S()


def half_logsnr(tables, t):
    """Return λ = ½ log(ᾱ/(1−ᾱ)) [B] at t [B]: −∞ where ᾱ = 0, ∞ at t = −1."""
    index = jnp.maximum(t, 0)
    log_ratio = tables.log_alpha_bar[index] - tables.log_one_minus_alpha_bar[index]
    return jnp.where(t < 0, jnp.inf, 0.5 * log_ratio)


def first_order(tables, x_0, noise, t_next):
    """Return α_n x̂_0 + σ_n ε̂, DDIM's move with η = 0 (Song et al. 2021, eq. 12)."""
    sqrt_next, one_minus_next = process.marginal(tables, t_next, x_0)
    return sqrt_next * x_0 + jnp.sqrt(one_minus_next) * noise


def _is_correction(kind):
    return kind == KINDS.index(CORRECT)


def _scaled(weight, change):
    """Return weight [B] · change, and no change where the weight is infinite or NaN."""
    weight = jnp.where(jnp.isfinite(weight), weight, 0.0)
    return arrays.expand_to(weight, change) * change
