"""Respacing: keep some of the timesteps of a process and recompute β in float64.

β′_k = 1 − ᾱ_{i_k} / ᾱ_{i_{k−1}}                       Improved DDPM eq. 19
"""

import itertools

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process

FAST27_SECTIONS = (10, 10, 3, 2, 2)


def respace(schedule: process.Schedule, spec: int | str) -> process.Schedule:
    """Return the process that keeps only the timesteps of `spec`.

    Args:
        schedule: a process that has not been respaced.
        spec: see `kept_timesteps`.

    Raises:
        Refusal: an impossible `spec`, or a process that is respaced already.
    """
    if schedule.num_steps != schedule.original_num_steps:
        raise errors.Refusal(
            f"this process already keeps {schedule.num_steps} of "
            f"{schedule.original_num_steps} steps: respace the original one"
        )
    kept = kept_timesteps(schedule.num_steps, spec)
    if len(kept) == schedule.num_steps:
        return schedule  # β recomputed from ᾱ would differ in its last bits
    alpha_bar = schedule.alpha_bar[list(kept)]
    betas = 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])
    return process.Schedule(
        betas=tuple(float(beta) for beta in betas),
        timesteps=kept,
        original_num_steps=schedule.original_num_steps,
        rescale_timesteps=schedule.rescale_timesteps,
        log_var_floor=schedule.log_var_floor,
    )


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
