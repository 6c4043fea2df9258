"""The directory of a run: what lies where, and writing that survives a kill."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
from pathlib import Path

import ddpm_jax
from ddpm_jax.core import errors
from ddpm_jax.runtime import distributed, files, home, versions
from ddpm_jax.runtime.console import say

SHOWN_NAMES = 3
MAX_CRASHES = 20  # records of bad steps: the first ones tell what later ones repeat


@dataclasses.dataclass(frozen=True)
class RunDir:
    """The directory of one run; it is a run once it holds config.json.

    Make one with `create` (to train) or `open_existing` (to use a trained run).
    """

    path: Path

    @classmethod
    def create(cls, path: str | os.PathLike) -> "RunDir":
        """Make the directory, or take one that is empty or already a run.

        Raises:
            Refusal: the path is a file, cannot be written, or holds other things.
        """
        run = cls(_absolute(path))
        if run.path.exists() and not run.path.is_dir():
            raise errors.Refusal(
                f"{run.path} is a file, not a directory: choose another --workdir"
            )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            names = sorted(p.name for p in run.path.iterdir() if p.name[0] != ".")
            names = [name for name in names if name != run.data_page.name]
            files.check_writable(run.path)
        except OSError as error:
            raise errors.Refusal(
                f"{run.path} cannot be written ({error.strerror}): "
                "choose another --workdir"
            ) from error
        if names and not run.config.exists():
            more = len(names) - SHOWN_NAMES
            shown = ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" * (more > 0))
            raise errors.Refusal(
                f"{run.path} is not a run and not empty (it holds {shown}): "
                "choose another --workdir"
            )
        return run

    @classmethod
    def at(cls, path: str | os.PathLike) -> "RunDir":
        """Return the directory at a path, whether there is a run or not."""
        return cls(_absolute(path))

    @classmethod
    def open_existing(cls, path: str | os.PathLike) -> "RunDir":
        """Return the run in a directory.

        Raises:
            Refusal: there is none.
        """
        run = cls(_absolute(path))
        if not run.config.is_file():
            raise errors.Refusal(
                f"no run in {run.path}: train one with "
                f"`python -m ddpm_jax.main --config=… --workdir={path}`"
            )
        return run

    @property
    def config(self) -> Path:
        """config.json: the resolved config and the versions of the packages."""
        return self.path / "config.json"

    @property
    def tokenizer(self) -> Path:
        """tokenizer.json: the tokenizer of a run that reads texts."""
        return self.path / "tokenizer.json"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def superseded_metrics(self) -> Path:
        """metrics.superseded.jsonl: lines of steps that were run again."""
        return self.path / "metrics.superseded.jsonl"

    @property
    def goodput(self) -> Path:
        """goodput.json: where the wall time of every start went."""
        return self.path / "goodput.json"

    @property
    def data_files(self) -> Path:
        """data_files.gz: a mark of every file of the data, see `data.marks`."""
        return self.path / "data_files.gz"

    @property
    def checkpoints(self) -> Path:
        """The directory that `Checkpoints` writes."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """The directory of grids and of generated images."""
        return self.path / "samples"

    @property
    def edits(self) -> Path:
        """Where edited pictures go, a folder each."""
        return self.path / "edits"

    @property
    def evaluation(self) -> Path:
        """The directory of evaluation cards."""
        return self.path / "evaluation"

    @property
    def crashes(self) -> Path:
        """The directory of records of steps that went wrong, crashes/step_<n>.json."""
        return self.path / "crashes"

    @property
    def report(self) -> Path:
        """report.html: curves, grids and cards."""
        return self.path / "report.html"

    @property
    def diagnosis_page(self) -> Path:
        """diagnosis.html: why samples are what they are."""
        return self.path / "diagnosis.html"

    @property
    def data_page(self) -> Path:
        """data.html: a look at the data, which may come before the run."""
        return self.path / "data.html"

    def write_json(self, path: str | os.PathLike, value) -> None:
        """Replace a JSON file of the run atomically.

        Args:
            path: relative to the run, or one of its paths.
            value: what JSON can express, and arrays.

        Raises:
            Refusal: `value` holds NaN or an infinity.
        """
        files.write_json(self.path / path, value)

    def write_crash(self, step: int, record: dict) -> Path | None:
        """Write the record of a step that went wrong; none is ever overwritten.

        Args:
            step: its number; a run that rolled back may reach it a second time.
            record: what JSON can express.

        Returns:
            The file, or None where MAX_CRASHES are there: all are counted in the state.
        """
        others = len([*self.crashes.glob("step_*.json")])
        if others >= MAX_CRASHES:
            return None
        names = [f"step_{step}.json"]
        names += [f"step_{step}_{n}.json" for n in range(2, others + 3)]
        path = next(p for p in map(self.crashes.joinpath, names) if not p.exists())
        self.write_json(path, record)
        return path

    def read_config(self) -> dict:
        """Return the object in config.json.

        Raises:
            Refusal: the file is missing, unreadable, not a JSON object, or of a newer
                version of this program.
        """
        try:
            value = json.loads(self.config.read_bytes())
        except OSError as error:
            raise errors.Refusal(
                f"{self.config} cannot be read ({error.strerror})"
            ) from error
        except ValueError as error:
            raise errors.Refusal(
                f"{self.config} is damaged ({error}): restore it from a copy, or "
                "train again in another --workdir"
            ) from error
        if not (isinstance(value, dict) and {"config", "data"} <= value.keys()):
            raise errors.Refusal(
                f"{self.config} is not the config of a run: {self.path} holds "
                "something else, choose another --workdir"
            )
        _check_version(self.config, value.get("versions"))
        return value

    @contextlib.contextmanager
    def lock(self):
        """Hold the run for this process; it is free again when the process ends.

        Of several that train it together, process 0 holds it.

        Raises:
            Refusal: another process holds it.
        """
        if not distributed.is_first():
            yield
            return
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise errors.Refusal(
                    f"another process trains in {self.path}: wait for it, or choose "
                    "another --workdir"
                ) from error
            except OSError as error:  # NFS, Lustre and others without locks
                say(
                    f"warning: {self.path} is on a disk without file locks "
                    f"({error.strerror}): make sure that no other process trains in it"
                )
            yield

    def check_writable(self) -> None:
        """Refuse a run whose results could not be written, before they are made.

        Raises:
            Refusal: names the directory and why.
        """
        try:
            for folder in (self.path, self.samples, self.evaluation):
                folder.mkdir(exist_ok=True)
                files.check_writable(folder)
        except OSError as error:
            raise errors.Refusal(
                f"{folder} cannot be written ({error.strerror}): free it, or copy the "
                "run and give the copy as --workdir"
            ) from error

    def append_metrics(self, record: dict) -> None:
        """Append one line to metrics.jsonl and flush it.

        Args:
            record: names to numbers, "step" among them; NaN and infinities are written
                as null, for JSON has no name for them.
        """
        plain = json.loads(
            json.dumps(record, default=files.to_plain), parse_constant=lambda _: None
        )
        line = json.dumps(plain, allow_nan=False).encode() + b"\n"
        with files.naming(self.metrics), open(self.metrics, "ab+") as file:
            if file.tell():
                # A kill may have cut the last line short: it must not swallow this one.
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)

    def read_metrics(self) -> list[dict]:
        """Return the records of metrics.jsonl in order, without half-written lines."""
        return [record for _, record in self._metric_lines()]

    def truncate_metrics_after(self, step: int) -> int:
        """Take the records of later steps out of metrics.jsonl, for a resumed run.

        They move to metrics.superseded.jsonl: appended there before they go here, so
        that a kill between the two can double but never lose them.

        Args:
            step: the step resumed from; its own record stays.

        Returns:
            How many records were moved, by process 0.
        """
        if not (distributed.is_first() and self.metrics.exists()):
            return 0
        kept, moved = [], []
        for line, record in self._metric_lines():
            later = record.get("step", -math.inf) > step
            (moved if later else kept).append(line + b"\n")
        if moved:
            superseded = self.superseded_metrics
            with files.naming(superseded), open(superseded, "ab") as file:
                file.write(b"".join(moved))
                file.flush()
                os.fsync(file.fileno())
        files.write_bytes(self.metrics, b"".join(kept))
        return len(moved)

    def _metric_lines(self) -> list[tuple[bytes, dict]]:
        """Return (line, record) of every whole line of metrics.jsonl."""
        if not self.metrics.exists():
            return []
        lines = []
        for line in self.metrics.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut short by a kill, or the end of the file
            if isinstance(record, dict):
                lines.append((line, record))
        return lines


def _check_version(path: Path, found) -> None:
    """Refuse what a newer version of this program made, and may mean otherwise.

    Args:
        path: the file.
        found: the versions that it names; anything else if it names none.
    """
    theirs = found.get("ddpm_jax") if isinstance(found, dict) else None
    if versions.numbers(theirs) > versions.numbers(ddpm_jax.__version__):
        raise errors.Refusal(
            f"{path} was made by ddpm_jax {theirs}, this is {ddpm_jax.__version__}: "
            f"install ddpm_jax {theirs} or newer to open it"
        )


def _absolute(path: str | os.PathLike) -> Path:
    if "://" in str(path):
        raise errors.Refusal(
            f"--workdir={path} is an address, not a directory: mount the bucket and "
            "give the place where it is mounted, such as --workdir=/mnt/runs/digits"
        )
    return home.expanded(path).absolute()
