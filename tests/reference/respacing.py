"""Which timesteps a shorter process keeps, and its betas."""

from fractions import Fraction

import numpy as np


def sections(num_steps, counts):
    """The published rule: accumulated floating-point strides, rounded half to even."""
    kept, start = [], 0
    base, longer = divmod(num_steps, len(counts))
    for index, count in enumerate(counts):
        size = base + (index < longer)
        stride = 1.0 if count == 1 else (size - 1) / (count - 1)
        position = 0.0
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += size
    return kept


def exact_positions(num_steps, count):
    """Where `count` evenly spaced steps of one section lie before rounding."""
    return [Fraction((num_steps - 1) * i, count - 1) for i in range(count)]


def ddim(num_steps, count):
    """Steps 0, i, 2i, … for the smallest i that gives `count` of them, or None."""
    for stride in range(1, num_steps):
        if -(-num_steps // stride) == count:
            return list(range(0, num_steps, stride))
    return None


def fast27(num_steps):
    kept = sections(num_steps, [10, 10, 3, 2, 2])
    return [*kept[:-1], num_steps - 3]


def betas(alpha_bar, kept):
    """1 − ᾱ(kept step) / ᾱ(the one kept before), from 1."""
    new, before = [], 1.0
    for step in kept:
        new.append(1 - alpha_bar[step] / before)
        before = alpha_bar[step]
    return np.array(new)
