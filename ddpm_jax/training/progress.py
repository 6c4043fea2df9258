"""What training says while it runs: one record an interval, one line a record."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ddpm_jax.core import errors


@dataclasses.dataclass
class Window:
    """The metrics of the steps since the last record, still on the device."""

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
        self._waited = 0.0
        self._clock = self._turned = time.perf_counter()
        self._counted_to = first_step  # steps that were done when the clock was read
        self._rate = None  # steps per second

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
        now = time.perf_counter()
        self._current.seconds, self._turned = now - self._turned, now
        self._current.wait_seconds = wait_seconds - self._waited
        self._waited = wait_seconds
        self._finished, self._current = self._current, Window(step)
        return record

    def flush(self, step: int, wait_seconds: float) -> Iterator[dict[str, Any]]:
        """Yield the records that are still due; waits for the device."""
        for due in (lambda: self.turn(step, wait_seconds), self._record):
            record = due()  # only now: the one before it is out if this one refuses
            if record:
                yield record
        self._finished = None

    def pause(self) -> None:
        """Restart the clock after something that is not training."""
        self._clock = self._turned = time.perf_counter()

    def _record(self):
        window = self._finished
        if window is None or not window.metrics:
            return None
        fetched = jax.device_get(window.metrics)  # waits for that interval's steps
        step = window.first_step + len(fetched)
        check_finite(fetched, window.first_step)
        self._measure(step)
        record = {"step": step, **_means(fetched)}
        record["images_per_second"] = self._rate * self._batch_size
        # A loop that runs ahead of its device waits for data without delaying it.
        duration_of_steps = max(window.seconds, len(fetched) / self._rate)
        record["data_wait"] = window.wait_seconds / duration_of_steps
        record["eta_seconds"] = (self._last_step - step) / self._rate
        return record

    def _measure(self, step):
        """Update the rate from the steps done since the last reading of the clock.

        Steps of the interval under way may be done too: they count, or a host that does
        not run ahead of its device would seem half as fast at first.
        """
        done = step + sum(m["loss"].is_ready() for m in self._current.metrics)
        now = time.perf_counter()
        if done > self._counted_to:
            seconds = max(now - self._clock, 1e-9)
            self._rate = (done - self._counted_to) / seconds
            self._counted_to, self._clock = done, now


def _means(fetched):
    """Return the means over steps, and the loss by quarter of t."""
    record = {
        name: float(np.mean([metrics[name] for metrics in fetched]))
        for name in ("loss", "mse", "vb", "grad_norm")
    }
    record["learning_rate"] = float(fetched[-1]["learning_rate"])
    for rate, share in fetched[-1]["ema_initial_share"].items():
        record[f"ema_initial_share/{rate}"] = float(share)
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
            f"gradient norm {float(metrics['grad_norm']):g}, and its update is not "
            "finite: it was left out and nothing after it is saved; start a new run "
            "with a lower train.learning_rate or train.clip_norm=1, from this one's "
            "last checkpoint if train.init_from names it"
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
