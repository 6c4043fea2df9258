"""What training says while it runs: one record an interval, one line a record."""

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np

from ddpm_jax.core import errors


@dataclasses.dataclass
class Window:
    """The metrics of the steps since the last line, still on the device."""

    first_step: int
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    wait_seconds: float = 0.0


class Progress:
    """Collects metrics and turns them into records, one interval late.

    The metrics of a step are fetched when the steps after it are already under way, so
    the loop never waits for the device.
    """

    def __init__(self, *, first_step: int, last_step: int, batch_size: int):
        self._last_step = last_step
        self._batch_size = batch_size
        self._current = Window(first_step)
        self._finished: Window | None = None
        self._started = time.perf_counter()
        self._waited = 0.0

    def add(self, metrics: dict[str, Any]) -> None:
        """Take the device metrics of one step."""
        self._current.metrics.append(metrics)

    def turn(self, step: int, wait_seconds: float) -> dict[str, Any] | None:
        """Close the interval before `step` and return the record of the one before it.

        Args:
            step: steps taken.
            wait_seconds: total time that the loop has waited for data.
        """
        record = self._record()
        self._current.wait_seconds = wait_seconds - self._waited
        self._waited = wait_seconds
        self._finished, self._current = self._current, Window(step)
        return record

    def flush(self, step: int, wait_seconds: float) -> list[dict[str, Any]]:
        """Return the records that are still due; waits for the device."""
        records = [self.turn(step, wait_seconds), self._record()]
        self._finished = None
        return [record for record in records if record]

    def pause(self) -> None:
        """Restart the clock after something that is not training."""
        self._started = time.perf_counter()

    def _record(self):
        window = self._finished
        if window is None or not window.metrics:
            return None
        fetched = jax.device_get(window.metrics)  # waits for that interval's steps
        now = time.perf_counter()
        seconds, self._started = now - self._started, now
        step = window.first_step + len(fetched)
        check_finite(fetched, window.first_step)
        record = {"step": step, **_means(fetched)}
        rate = len(fetched) / max(seconds, 1e-9)
        record["images_per_second"] = rate * self._batch_size
        record["data_wait"] = min(window.wait_seconds / max(seconds, 1e-9), 1.0)
        record["eta_seconds"] = (self._last_step - step) / rate
        return record


def _means(fetched):
    """Return the means over steps, and the loss by quarter of t."""
    record = {
        name: float(np.mean([metrics[name] for metrics in fetched]))
        for name in ("loss", "mse", "vb", "grad_norm")
    }
    sums = np.sum([metrics["quarter_loss"] for metrics in fetched], axis=0)
    counts = np.sum([metrics["quarter_count"] for metrics in fetched], axis=0)
    for quarter, (total, count) in enumerate(zip(sums, counts, strict=True)):
        record[f"loss_q{quarter}"] = float(total / count) if count else None
    return record


def check_finite(fetched, first_step: int) -> None:
    """Stop where a loss or gradient was not finite.

    Raises:
        Refusal: names the first such step.
    """
    bad = [i for i, metrics in enumerate(fetched) if not metrics["finite"]]
    if bad:
        metrics = fetched[bad[0]]
        raise errors.Refusal(
            f"step {first_step + bad[0] + 1} has loss {float(metrics['loss']):g} and "
            f"gradient norm {float(metrics['grad_norm']):g}: its update was left out "
            "and nothing after it is saved; lower train.learning_rate or set "
            "train.clip_norm=1 in a new run, or give the same command to go on from "
            "the last checkpoint"
        )


def line(record: dict[str, Any], last_step: int) -> str:
    """Return a record as the line that is printed."""
    quarters = " ".join(_short(record[f"loss_q{q}"]) for q in range(4))
    return (
        f"step {record['step']:>{len(str(last_step))}}/{last_step}"
        f"  loss {_short(record['loss'])}  by quarter of t {quarters}"
        f"  {record['images_per_second']:.0f} images/s"
        f"  data wait {100 * record['data_wait']:.1f} %"
        f"  ETA {duration(record['eta_seconds'])}"
    )


def _short(value):
    return "–" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Return e.g. "45 s", "3 min 20 s" or "5 h 07 min"."""
    seconds = math.ceil(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
