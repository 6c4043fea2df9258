"""checkpoints/best.json: which step scored best, by what."""

import dataclasses
import json
import math
from pathlib import Path

from ddpm_jax.core import errors
from ddpm_jax.runtime import files

NAME = "best.json"


@dataclasses.dataclass(frozen=True)
class Best:
    """The step that scored best so far.

    Attributes:
        step: of the checkpoint.
        metric: what it was scored by.
        value: its score.
        protocol: what else decided it, as a digest.
    """

    step: int
    metric: str
    value: float
    protocol: str = ""

    def is_like(self, other: "Best") -> bool:
        """Return whether the two values were measured alike."""
        return (self.metric, self.protocol) == (other.metric, other.protocol)

    def beats(self, other: "Best | None", *, lower_is_better: bool) -> bool:
        """Return whether this is the better one, as any is that `other` is unlike.

        What is not finite beats nothing: it would never be beaten itself.
        """
        if not math.isfinite(self.value):
            return False
        if other is None or not self.is_like(other):
            return True
        if lower_is_better:
            return self.value < other.value
        return self.value > other.value


def read(folder: Path) -> Best | None:
    """Return what best.json says, None without one.

    Raises:
        Refusal: it is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return Best(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise errors.Refusal(
            f"{path} is damaged ({error}): delete it, and the next evaluation in "
            "training writes it again"
        ) from error


def write(folder: Path, best: Best) -> None:
    """Replace best.json atomically."""
    files.write_json(folder / NAME, dataclasses.asdict(best))
