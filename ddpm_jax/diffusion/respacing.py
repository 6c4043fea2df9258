"""Respacing: keep some of the timesteps of a process and recompute β in float64.

β′_k = 1 − ᾱ_{i_k} / ᾱ_{i_{k−1}}                       Improved DDPM eq. 19

A number of steps may be spaced in several ways; all keep T−1, where chains start:

    even       equal distances in t, from T−1 to 0 (the papers; "linspace" elsewhere)
    trailing   round(T − k T/n) − 1: T−1 and every T/n-th below (Lin et al. 2023)
    quadratic  equal distances in √t, from T−1 to 0 (Song et al. 2021, appendix D.2)
    logsnr     equal distances in log(ᾱ/(1−ᾱ)), from T−1 to 0 (Lu et al. 2022)
"""

import itertools

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process

SPACINGS = ("even", "trailing", "quadratic", "logsnr")
FAST27_SECTIONS = (10, 10, 3, 2, 2)


def respace(
    schedule: process.Schedule, spec: int | str, spacing: str = "even"
) -> process.Schedule:
    """Return the process that keeps only the timesteps of `spec`.

    Args:
        schedule: a process that has not been respaced.
        spec: see `kept_timesteps`.
        spacing: of an integer `spec`, one of `SPACINGS`; a string has its own.

    Raises:
        Refusal: an impossible `spec`, or a process that is respaced already.
    """
    if schedule.num_steps != schedule.original_num_steps:
        raise errors.Refusal(
            f"this process already keeps {schedule.num_steps} of "
            f"{schedule.original_num_steps} steps: respace the original one"
        )
    if isinstance(spec, str):
        kept = kept_timesteps(schedule.num_steps, spec)
    else:
        kept = spaced(schedule, spec, spacing)
    if len(kept) == schedule.num_steps:
        return schedule  # β recomputed from ᾱ would differ in its last bits
    return _keeping(schedule, kept)


def respace_below(
    schedule: process.Schedule, count: int, last: int, spacing: str = "even"
) -> process.Schedule:
    """Return the process that keeps `count` of the timesteps 0 … last, `last` too.

    A chain that starts at `last` takes exactly `count` steps of it.

    Args:
        schedule: a process that has not been respaced.
        count: 1 … last+1.
        last: the original timestep where the chain starts.
        spacing: one of `SPACINGS`.

    Raises:
        Refusal: more steps than there are, or an unknown spacing.
    """
    head = process.Schedule(
        betas=schedule.betas[: last + 1],
        timesteps=schedule.timesteps[: last + 1],
        original_num_steps=schedule.original_num_steps,
        rescale_timesteps=schedule.rescale_timesteps,
        log_var_floor=schedule.log_var_floor,
    )
    if count == head.num_steps:
        return head
    return _keeping(schedule, spaced(head, count, spacing))


def _keeping(schedule, kept):
    alpha_bar = schedule.alpha_bar[list(kept)]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    return process.Schedule(
        betas=tuple(float(beta) for beta in betas),
        timesteps=kept,
        original_num_steps=schedule.original_num_steps,
        rescale_timesteps=schedule.rescale_timesteps,
        log_var_floor=schedule.log_var_floor,
    )


def spaced(schedule: process.Schedule, count: int, spacing: str) -> tuple[int, ...]:
    """Return `count` timesteps of a process, ascending and distinct, T−1 among them.

    Where the rule wants one timestep twice, the neighbours are taken too.

    Args:
        schedule: the process, not respaced.
        count: 1 … T.
        spacing: one of `SPACINGS`.

    Raises:
        Refusal: a number of steps that the process does not have, or an unknown name.
    """
    whole = schedule.num_steps
    even = kept_timesteps(whole, count)  # refuses a count that is none
    if spacing not in SPACINGS:
        raise errors.Refusal(
            f"unknown spacing {spacing!r}: choose one of {', '.join(SPACINGS)}"
        )
    if spacing == "even" or count == 1:
        return even
    if spacing == "trailing":
        return tuple(round(whole * k / count) - 1 for k in range(1, count + 1))
    if spacing == "quadratic":
        share = np.arange(count) / (count - 1)
        return _distinct(np.rint((whole - 1) * share**2), whole)
    return _distinct(_by_logsnr(schedule, count), whole)


def _by_logsnr(schedule, count):
    """Return the nearest timesteps to equal distances in log-SNR, ascending."""
    alpha_bar = schedule.alpha_bar
    last = len(alpha_bar) - 1
    # Without any signal the last log-SNR is −∞: the rest is spaced from the one before.
    tail = [last] if alpha_bar[-1] == 0 else []
    alpha_bar = alpha_bar[: last + 1 - len(tail)]
    logsnr = np.log(alpha_bar) - np.log1p(-alpha_bar)
    targets = np.linspace(logsnr[0], logsnr[-1], count - len(tail))
    above = np.clip(np.searchsorted(-logsnr, -targets), 1, max(1, len(logsnr) - 1))
    pairs = np.minimum(np.stack([above - 1, above]), len(logsnr) - 1)
    nearest = np.argmin(np.abs(logsnr[pairs] - targets), axis=0)
    return np.append(np.take_along_axis(pairs, nearest[None], 0)[0], tail)


def _distinct(wanted, num_steps):
    """Return timesteps near `wanted`, ascending, distinct, and with T−1 at the end."""
    kept = [int(t) for t in wanted]
    for k in range(1, len(kept)):
        kept[k] = max(kept[k], kept[k - 1] + 1)
    kept[-1] = num_steps - 1
    for k in range(len(kept) - 2, -1, -1):
        kept[k] = min(kept[k], kept[k + 1] - 1)
    return tuple(kept)


def kept_timesteps(num_steps: int, spec: int | str) -> tuple[int, ...]:
    """Return the timesteps of 0 … T−1 that `spec` keeps, ascending.

    Args:
        num_steps: T.
        spec: an integer n keeps n evenly spaced timesteps, always T−1 (n = 1 keeps
            T−1 alone). A string is one of the published forms: "250" or "90,60,20"
            (that many in each of equal sections; one alone keeps the section's first
            index), "ddim50" (every T/50-th from 0), "fast27" (GLIDE's upsampler),
            "" (all).

    Raises:
        Refusal: more steps than there are, or a form that is not known.
    """
    if isinstance(spec, int | np.integer) and not isinstance(spec, bool):
        if not 1 <= spec <= num_steps:
            raise errors.Refusal(
                f"{spec} sampling steps of a process with {num_steps}: choose "
                f"1 … {num_steps}"
            )
        return (
            (num_steps - 1,) if spec == 1 else _sections(num_steps, [int(spec)], spec)
        )
    if not isinstance(spec, str):
        raise errors.Refusal(f"respacing {spec!r}: give an integer or a string")
    if spec == "":
        return tuple(range(num_steps))
    if spec == "fast27":
        return _fast27(num_steps, spec)
    if spec.startswith("ddim"):
        return _strided(num_steps, _integer(spec[len("ddim") :], spec))
    counts = [_integer(part, spec) for part in spec.split(",")]
    return _sections(num_steps, counts, spec)


def _integer(text, spec):
    if not text.strip().isdecimal() or int(text) < 1:
        raise errors.Refusal(
            f"respacing {spec!r}: give counts such as '250' or '90,60,60,20,20', "
            "'ddim50' or 'fast27'"
        )
    return int(text)


def _strided(num_steps, count):
    """Return range(0, T, i) for the smallest stride i with `count` entries."""
    for stride in range(1, num_steps):
        kept = range(0, num_steps, stride)
        if len(kept) == count:
            return tuple(kept)
    lengths = sorted({len(range(0, num_steps, s)) for s in range(1, num_steps)})
    nearest = sorted(lengths, key=lambda length: (abs(length - count), length))[:2]
    advice = " or ".join(f"'ddim{length}'" for length in sorted(nearest))
    alternative = f"use {advice}" if nearest else "use an integer number of steps"
    raise errors.Refusal(
        f"respacing 'ddim{count}': no integer stride takes {count} of {num_steps} "
        f"steps; {alternative}"
    )


def _sections(num_steps, counts, spec):
    """Keep counts[i] evenly spaced steps of section i, the T mod k first one longer."""
    size, longer = divmod(num_steps, len(counts))
    kept, start = [], 0
    for section, count in enumerate(counts):
        length = size + (section < longer)
        if count > length:
            raise errors.Refusal(
                f"respacing {spec!r} asks for {count} steps in section {section + 1} "
                f"of {len(counts)}, which has {length} of the {num_steps}: ask for at "
                f"most {length} there"
            )
        # The published rule accumulates the stride, and rounds halves to even.
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        offsets = itertools.accumulate([0.0] + [stride] * (count - 1))
        kept += [start + round(offset) for offset in offsets]
        start += length
    return tuple(kept)


def _fast27(num_steps, spec):
    """Return GLIDE's 27 steps: sections 10,10,3,2,2 with T−1 replaced by T−3."""
    kept = _sections(num_steps, FAST27_SECTIONS, spec)[:-1]
    if kept[-1] >= num_steps - 3:
        raise errors.Refusal(
            f"respacing 'fast27' of {num_steps} steps: it needs room for T−3 after "
            f"{kept[-1]}; use more steps"
        )
    return (*kept, num_steps - 3)
