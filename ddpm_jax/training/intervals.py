"""What is due after a step: validation, sample grid, evaluation."""

VALIDATION, GRID, SCORES = "validation", "grid", "scores"


def due(done: int, every: int) -> bool:
    """Return whether an interval ends after `done` steps; 0 means never."""
    return every > 0 and done % every == 0


def looks(train, done: int) -> tuple[str, ...]:
    """Return which of validation, grid and scores are due after `done` steps.

    Args:
        train: config.train.
        done: steps taken.
    """
    every = {
        VALIDATION: train.validate_every,
        GRID: train.sample_every,
        SCORES: train.evaluate_every,
    }
    return tuple(part for part, interval in every.items() if due(done, interval))
