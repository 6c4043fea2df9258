"""Which images make the batch of which step: a pure function of (seed, step)."""

import dataclasses
import functools

import numpy as np

from ddpm_jax.core import errors


@dataclasses.dataclass(frozen=True)
class Order:
    """An endless reading order, shuffled anew in every epoch.

    The global batch of step k is made of the positions k·B … k·B + B - 1 of Grain's
    shuffled and repeated index; each run of `num_examples` positions from a multiple
    of it contains every image once. Nothing is stored between steps, so resuming
    needs the step alone, and any step costs the same.

    Attributes:
        num_examples: number of images N.
        batch_size: global batch size B, 1 … N.
        seed: 0 … 2³² - 1.

    Raises:
        Refusal: a batch size or seed outside these bounds.
    """

    num_examples: int
    batch_size: int
    seed: int

    def __post_init__(self):
        if self.batch_size <= 0:
            raise errors.Refusal(
                f"batch size {self.batch_size} is not positive: set train.batch_size "
                f"to 1 … {self.num_examples}"
            )
        if self.batch_size > self.num_examples:
            raise errors.Refusal(
                f"batch size {self.batch_size} is larger than the data set "
                f"({self.num_examples} images): lower train.batch_size to at most "
                f"{self.num_examples}"
            )
        if not 0 <= self.seed < 2**32:
            raise errors.Refusal(
                f"seed {self.seed} is not in 0 … {2**32 - 1}: set seed to one of these"
            )

    def indices(self, step: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return the image indices of rows start … stop - 1 of a step's global batch.

        Args:
            step: 0, 1, …
            start: first row, 0 … B.
            stop: one past the last row; None means B.

        Returns:
            int64 [stop - start].

        Raises:
            ValueError: a negative step, or rows outside the batch.
        """
        stop = self.batch_size if stop is None else stop
        if step < 0 or not 0 <= start <= stop <= self.batch_size:
            raise ValueError(
                f"no rows {start}:{stop} of step {step} in batches of {self.batch_size}"
            )
        first = step * self.batch_size
        positions = range(first + start, first + stop)
        return np.fromiter(
            (self._shuffled[position] for position in positions),
            np.int64,
            count=len(positions),
        )

    @functools.cached_property
    def _shuffled(self):
        # Grain takes about a second to import, so it waits for the first batch, which
        # is made in the background.
        import grain

        # `seed` rather than `shuffle(seed=…)`: there, epoch e of seed s would repeat
        # epoch e - 1 of seed s + 1.
        dataset = grain.MapDataset.range(self.num_examples)
        return dataset.seed(self.seed).shuffle().repeat()
