"""What training says while it runs: one record an interval, one line a record."""

import dataclasses
import math
import time
from typing import Any

import jax
import numpy as np

from ddpm_jax.diffusion import losses
from ddpm_jax.training import resources, update

NOT_REPORTED = ("t", "example_loss", "block_norms")  # need not stay on the device
QUARTERED = "quarter_"  # begins the name of what is summed by quarter of t
REPORTED = tuple(name for name in update.COMMON if name not in NOT_REPORTED)


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

    Args:
        first_step: steps taken so far.
        last_step: steps to take in all.
        batch_size: global number of images a step.
        flops_per_image: floating-point operations of a train step for one image, or
            None where nobody knows.
        peak_flops: the most that all devices together can do in a second, or None.
    """

    def __init__(
        self,
        *,
        first_step: int,
        last_step: int,
        batch_size: int,
        flops_per_image: float | None = None,
        peak_flops: float | None = None,
    ):
        self._last_step = last_step
        self._batch_size = batch_size
        known = flops_per_image and peak_flops
        self._peak_images = peak_flops / flops_per_image if known else None  # a second
        self._current = Window(first_step)
        self._finished: Window | None = None
        self._waited = 0.0
        self._clock = self._turned = time.perf_counter()
        self._counted_to = first_step  # steps that were done when the clock was read
        self._rate = None  # steps per second

    def add(self, metrics: dict[str, Any]) -> None:
        """Take the device metrics of one step: the common ones and its own scalars."""
        names = (*REPORTED, *_own(metrics), *_own_by_quarter(metrics))
        self._current.metrics.append({name: metrics[name] for name in names})

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

    def flush(self, step: int, wait_seconds: float) -> list[dict[str, Any]]:
        """Return the records that are still due; waits for the device."""
        records = [self.turn(step, wait_seconds), self._record()]
        self._finished = None
        return [record for record in records if record]

    def pause(self) -> None:
        """Restart the clock after something that is not training."""
        self._clock = self._turned = time.perf_counter()

    def _record(self):
        window = self._finished
        if window is None or not window.metrics:
            return None
        fetched = jax.device_get(window.metrics)  # waits for that interval's steps
        step = window.first_step + len(fetched)
        self._measure(step)
        record = {"step": step, **_means(fetched)}
        record["images_per_second"] = self._rate * self._batch_size
        if self._peak_images:
            record["mfu"] = record["images_per_second"] / self._peak_images
        # A loop that runs ahead of its device waits for data without delaying it.
        duration_of_steps = max(window.seconds, len(fetched) / self._rate)
        record["data_wait"] = window.wait_seconds / duration_of_steps
        record["eta_seconds"] = (self._last_step - step) / self._rate
        record["host_memory_gib"] = resources.host_memory_gib()
        record["compilations"] = resources.compilations()
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


def _own(metrics):
    """Return the names of the scalars that not every kind of step has, sorted."""
    own = metrics.keys() - set(update.COMMON)
    return sorted(name for name in own if getattr(metrics[name], "ndim", None) == 0)


def _own_by_quarter(metrics):
    """Return the names of sums by quarter that not every kind of step has, sorted."""
    own = metrics.keys() - set(update.COMMON)
    return sorted(name for name in own if name.startswith(QUARTERED))


def _means(fetched):
    """Return means over the steps that counted, some of them by quarter of t too."""
    good = [metrics for metrics in fetched if metrics["finite"]]
    names = ("loss", *_own(fetched[0]), "grad_norm")
    record = {name: _mean([metrics[name] for metrics in good]) for name in names}
    record["skipped"] = len(fetched) - len(good)
    record["learning_rate"] = float(fetched[-1]["learning_rate"])
    for rate, share in fetched[-1]["ema_initial_share"].items():
        record[f"ema_initial_share/{rate}"] = float(share)
    counts = sum(metrics["quarter_count"] for metrics in good)
    for name in ("quarter_loss", *_own_by_quarter(fetched[0])):
        sums, term = sum(metrics[name] for metrics in good), name[len(QUARTERED) :]
        for quarter in range(losses.QUARTERS):
            count = counts[quarter] if good else 0
            mean = float(sums[quarter] / count) if count else None
            record[f"{term}_q{quarter}"] = mean
    return record


def _mean(values):
    return float(np.mean(values)) if values else None


def line(record: dict[str, Any], last_step: int) -> str:
    """Return a record as the line that is printed."""
    quarters = " ".join(_short(record[f"loss_q{q}"]) for q in range(losses.QUARTERS))
    share = record.get("accuracy")
    accuracy = "" if share is None else f"  accuracy {100 * share:.1f} %"
    mfu = f"  MFU {100 * record['mfu']:.0f} %" if "mfu" in record else ""
    updates = "update" if record["skipped"] == 1 else "updates"
    skipped = f"  {record['skipped']} {updates} skipped" if record["skipped"] else ""
    return (
        f"step {record['step']:>{len(str(last_step))}}/{last_step}"
        f"  loss {_short(record['loss'])}  by quarter of t {quarters}{accuracy}"
        f"  {record['images_per_second']:.0f} images/s{mfu}"
        f"  data wait {100 * record['data_wait']:.1f} %"
        f"  ETA {duration(record['eta_seconds'])}{skipped}"
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
