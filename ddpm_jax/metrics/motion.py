"""How far the neighbouring frames of an animation are from each other."""

from typing import NamedTuple

import numpy as np


class Motion(NamedTuple):
    """Distances between neighbouring frames, in grey levels of 0 … 255.

    Attributes:
        mean, largest: over all neighbours.
        closing: from the last frame to the first, None where the animation is no loop.
    """

    mean: float
    largest: float
    closing: float | None

    def __str__(self) -> str:
        text = f"{self.mean:.2f} grey levels of 255 apart (mean), at most "
        text += f"{self.largest:.2f}"
        if self.mean:
            text += f", {self.largest / self.mean:.1f} times the mean"
        if self.closing is not None:
            text += f"; the last and the first: {self.closing:.2f}"
        return text


def motion(frames: np.ndarray, *, is_loop: bool) -> Motion:
    """Return the root mean squared differences between neighbouring frames.

    A jump shows as a largest distance of many times the mean.

    Args:
        frames: uint8 [F, ...], at least 2.
        is_loop: the first frame follows the last one.
    """
    following = np.roll(frames, -1, axis=0)
    apart = np.array(
        [
            np.sqrt(np.mean((a.astype(np.float64) - b) ** 2))
            for a, b in zip(frames, following, strict=True)
        ]
    )
    closing = float(apart[-1]) if is_loop else None
    apart = apart if is_loop else apart[:-1]
    return Motion(float(apart.mean()), float(apart.max()), closing)
