"""The kinds of a path's entries, and the path of a solver of one evaluation a step."""

STEP, RENOISE, PREDICT, CORRECT = "step", "renoise", "predict", "correct"
KINDS = (STEP, RENOISE, PREDICT, CORRECT)  # by the number that compiled chains see


def sampling_path(num_steps: int) -> tuple:
    """Return T′−1 → T′−2 → … → 0 → −1: every step of the process, downward."""
    return tuple((t, t - 1, STEP) for t in range(num_steps - 1, -1, -1))


def encoding_path(num_steps: int) -> tuple:
    """Return 0 → 1 → … → T′−1, the T′−1 steps upward.

    The step beyond T′−1 is left out: it adds visible noise (ADM appendix).
    """
    return tuple((t, t + 1, STEP) for t in range(num_steps - 1))
