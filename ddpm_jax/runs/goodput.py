"""Goodput: the share of a run's wall time that became training, over all its starts.

Time is spent on starting (data, compiling), on waiting for data, on looking (grids,
validation, evaluation), on saving as far as training waits for it, and on the rest:
training. What a kill or a going back undid is lost, and was no training after all.
Time in which no process ran is not counted; of one that was killed, what came after its
last record is not known.
"""

import contextlib
import json
import time
from typing import Any

from ddpm_jax.runs import directory
from ddpm_jax.runtime import distributed, files
from ddpm_jax.runtime.console import say

STARTING, DATA, LOOKING, SAVING = "starting", "data", "looking", "saving"
TRAINING, LOST = "training", "lost"
SPENT = (STARTING, DATA, LOOKING, SAVING)
TOLD = {
    STARTING: "starting",
    DATA: "waiting for data",
    LOOKING: "looking",
    SAVING: "saving",
    LOST: "lost",
}


class Ledger:
    """Where the time of this start goes, kept in the run beside that of earlier ones.

    Args:
        run_dir: the run; None keeps nothing.
        begun: `time.perf_counter()` when this start began; now by default.
    """

    def __init__(
        self, run_dir: directory.RunDir | None = None, begun: float | None = None
    ):
        self._path = None if run_dir is None else run_dir.goodput
        self._earlier = read(run_dir) if run_dir is not None else []
        self._begun = time.perf_counter() if begun is None else begun
        self._part: dict[str, Any] = {}

    def begin(self, step: int) -> None:
        """Note that steps begin after `step` steps; again where training goes back.

        All time until the first of these notes was spent on starting.
        """
        now = time.perf_counter()
        if self._part:  # going back took the time since the last note
            spent = now - self._begun
            self._part[STARTING] += spent - self._part["seconds"]
            self._part["seconds"] = spent
            self._earlier.append(self._part)
        starting = 0.0 if self._part else now - self._begun
        self._begun = now - starting
        self._part = {
            "first_step": step,
            "step": step,
            "seconds": starting,
            **dict.fromkeys(SPENT, 0.0),
            STARTING: starting,
        }
        self._write()

    @contextlib.contextmanager
    def spending(self, kind: str):
        """Count the time of a block as spent on one of `SPENT`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            if self._part:
                self._part[kind] += time.perf_counter() - begun

    def note(self, step: int, wait_seconds: float | None = None) -> None:
        """Write what is known after `step` steps.

        Args:
            step: steps taken.
            wait_seconds: total time that the loop has waited for data since it began;
                None leaves it as it was.
        """
        if not self._part:
            return
        self._part["step"] = step
        self._part["seconds"] = time.perf_counter() - self._begun
        if wait_seconds is not None:
            self._part[DATA] = wait_seconds
        self._write()

    def ended(self, step: int) -> str:
        """Count the time since the last note as saving, the last; return `sentence`.

        Args:
            step: steps taken.
        """
        if self._part:
            now = time.perf_counter() - self._begun
            self._part[SAVING] += now - self._part["seconds"]
            try:
                self.note(step)
            except OSError as error:  # the run itself is saved
                say(f"warning: where the time went was not written: {error}")
        return self.sentence()

    def sentence(self) -> str:
        """Return `sentence` of the run so far."""
        return sentence(self.parts())

    def parts(self) -> list[dict]:
        """Return the parts of the run so far, this one last."""
        return [*self._earlier, *([self._part] if self._part else [])]

    def _write(self):
        if self._path is None or not distributed.is_first():
            return
        if self._path.parent.is_dir():  # a run that was renamed is not made anew
            files.write_json(self._path, {"parts": self.parts()})


def read(run_dir: directory.RunDir) -> list[dict]:
    """Return the parts of a run, oldest first; [] where none were noted.

    A file that is no such list is taken for none: it decides nothing.
    """
    try:
        parts = json.loads(run_dir.goodput.read_bytes())["parts"]
        names = ("first_step", "step", "seconds", *SPENT)
        return [{name: float(part[name]) for name in names} for part in parts]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def account(parts: list[dict]) -> dict[str, float]:
    """Return seconds by kind, "training" and "lost" among them, of all parts.

    Of a part whose last steps were taken again by a later one, the share of these steps
    in its training is lost.
    """
    total = dict.fromkeys((TRAINING, *SPENT, LOST), 0.0)
    for place, part in enumerate(parts):
        trained = part["seconds"] - sum(part[kind] for kind in SPENT)
        trained = max(trained, 0.0)  # a clock that is read twice rounds
        first, last = part["first_step"], part["step"]
        again = min((p["first_step"] for p in parts[place + 1 :]), default=last)
        kept = max(min(last, again) - first, 0)
        share = kept / (last - first) if last > first else 0.0
        total[TRAINING] += share * trained
        total[LOST] += (1 - share) * trained
        for kind in SPENT:
            total[kind] += part[kind]
    return total


def sentence(parts: list[dict]) -> str:
    """Return "goodput 83 % (starting 9 %, …)", or "" where nothing is known."""
    spent = account(parts)
    seconds = sum(spent.values())
    if seconds <= 0:
        return ""
    shares = [
        f"{word} {100 * spent[kind] / seconds:.0f} %"
        for kind, word in TOLD.items()
        if spent[kind] / seconds >= 0.005
    ]
    starts = sum(part[STARTING] > 0 for part in parts)
    text = f"goodput {100 * spent[TRAINING] / seconds:.0f} %"
    text += f" ({', '.join(shares)})" if shares else ""
    return text + (f" over {starts} starts" if starts > 1 else "")
