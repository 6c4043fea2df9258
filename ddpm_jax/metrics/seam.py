"""Does an edited region pass into the rest without an edge?"""

import numpy as np


def seam_index(images: np.ndarray, hole: np.ndarray) -> float:
    """Return how much neighbours differ across the edge of a hole, against elsewhere.

    It is the mean absolute difference of neighbours of which one lies in the hole, over
    that of all other neighbours. 1 is no seam; real images have about 1.

    Args:
        images: [n, H, W, C].
        hole: bool [n, H, W] or [H, W].

    Returns:
        NaN where the hole has no edge, or nothing differs elsewhere.
    """
    images = np.asarray(images, np.float64)
    hole = np.broadcast_to(hole, images.shape[:3])
    sums, counts = np.zeros(2), np.zeros(2)
    for axis in (1, 2):
        apart = np.abs(np.diff(images, axis=axis)).mean(axis=-1)
        is_edge = np.diff(hole.astype(np.int8), axis=axis) != 0
        for kind, chosen in enumerate((is_edge, ~is_edge)):
            sums[kind] += apart[chosen].sum()
            counts[kind] += np.count_nonzero(chosen)
    if not counts.all() or not sums[1]:
        return float("nan")
    edge, elsewhere = sums / counts
    return float(edge / elsewhere)
