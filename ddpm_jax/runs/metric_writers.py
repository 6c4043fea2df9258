"""Where metrics go: metrics.jsonl always, TensorBoard and Weights & Biases if asked."""

import contextlib
import importlib
import json
import numbers
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.runs import directory
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.console import say

PROJECT = "ddpm_jax"  # of Weights & Biases, unless WANDB_PROJECT says another


class TensorBoard:
    """Event files in <run>/tensorboard/; look at them with `tensorboard --logdir`.

    Written in the caller's thread: with a thread of its own, as `SummaryWriter` has it,
    a full disk would not be an error but a loop that waits for ever.
    """

    package = "tensorboardX"
    failures = (OSError,)

    def __init__(self, run_dir, config, name, step):
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2

        del config, name
        self._event = event_pb2.Event
        self._start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        folder = run_dir.path / "tensorboard"
        folder.mkdir(exist_ok=True)
        # A suffix of its own, for two files of one second would be one file.
        self._file = event_file_writer.EventsWriter(
            str(folder / "events"), f".{os.getpid()}.{secrets.token_hex(2)}"
        )
        self.restart(step)

    def restart(self, step: int) -> None:
        # It hides what was written beyond `step`, by this life of the run or another.
        self._add(step + 1, session_log=self._start)

    def write(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX import summary

        for tag, value in values.items():
            self._add(step, summary=summary.scalar(tag, value))

    def image(self, step: int, name: str, path: Path) -> None:
        from tensorboardX import summary

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._add(step, summary=summary.image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        self._file.close()

    def _add(self, step, **content):
        self._file.write_event(self._event(wall_time=time.time(), step=step, **content))
        self._file.flush()


class WeightsAndBiases:
    """A run of wandb, kept in <run>/wandb/; WANDB_MODE=offline needs no account."""

    package = "wandb"

    def __init__(self, run_dir, config, name, step):
        import wandb

        del step
        self.failures = (OSError, wandb.Error)
        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=name,
                id=_kept_id(run_dir),
                resume="allow",
                dir=str(run_dir.path),
                config=config,
                allow_val_change=True,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            raise errors.Refusal(
                f"train.writers=wandb does not start ({error}): log in with "
                "`wandb login`, set WANDB_MODE=offline, or leave it out"
            ) from error
        # Steps as a metric: wandb's own counter would drop what a resume writes again.
        self._run.define_metric("*", step_metric="step")
        if not self._run.offline and self._run.url:
            say(f"wandb: {self._run.url}")

    def restart(self, step: int) -> None:
        """Keep later steps: wandb shows them twice and forgets nothing."""

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, path: Path) -> None:
        self._run.log({"step": step, name: self._image(str(path))})

    def close(self) -> None:
        self._run.finish()


WRITERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Writer:
    """Writes every record to metrics.jsonl and to what else was asked for.

    A failure of metrics.jsonl ends the run. Another writer that fails is named once and
    left out from then on: a picture of the training is no reason to stop it.
    """

    def __init__(self, run_dir: directory.RunDir):
        self._run_dir = run_dir
        self._others = {}

    def add(self, name: str, other) -> None:
        """Write to `other` too from now on, under a name of `WRITERS`."""
        self._others[name] = other

    def write(self, record: dict) -> None:
        """Write one record, names to values with "step" among them."""
        if not distributed.is_first():
            return
        self._run_dir.append_metrics(record)
        values = dict(_numbers(record))
        self._each(lambda other: other.write(record["step"], values))

    def restart(self, step: int) -> None:
        """Hide the records after a step that training rolls back to, where possible."""
        self._each(lambda other: other.restart(step))

    def image(self, step: int, name: str, path: str | os.PathLike) -> None:
        """Show a picture of the run, given as the PNG file that it already has."""
        self._each(lambda other: other.image(step, name, Path(path)))

    def close(self) -> None:
        """Write what still waits; wandb uploads it."""
        self._each(lambda other: other.close())
        self._others.clear()

    def _each(self, do):
        for name, other in list(self._others.items()):
            try:
                do(other)
            except other.failures as error:
                del self._others[name]
                say(
                    f"{name} cannot be written ({error}): the run continues without "
                    f"it; {self._run_dir.metrics.name} holds every record"
                )


@contextlib.contextmanager
def open_writers(
    names: Sequence[str],
    *,
    run_dir: directory.RunDir,
    config: dict,
    name: str,
    step: int = 0,
):
    """Yield the `Writer` of a run and close it at the end; process 0 alone writes.

    Args:
        names: keys of `WRITERS`, which `check` has seen.
        run_dir: the run; all that is written lies in it.
        config: what wandb shows beside the curves.
        name: what wandb calls the run.
        step: the step that the run goes on from.

    Raises:
        Refusal: a writer that cannot be opened here.
    """
    writer = Writer(run_dir)
    try:
        for chosen in names if distributed.is_first() else ():
            try:
                opened = WRITERS[chosen](run_dir, config, name, step)
            except OSError as error:
                raise errors.Refusal(
                    f"train.writers={chosen} does not start ({error}): make room for "
                    "it, or leave it out"
                ) from error
            writer.add(chosen, opened)
        yield writer
    finally:
        writer.close()


def check(names: Sequence[str]) -> None:
    """Refuse writers that cannot be had, before anything is made.

    Raises:
        Refusal: an unknown name, or a package that is missing, with its pip line.
    """
    for name in names:
        package = errors.choose("train.writers", WRITERS, name).package
        try:
            # A folder of that name in the working directory is importable too.
            found = importlib.import_module(package).__file__ is not None
            reason = "it is not installed"
        except ImportError as error:
            found, reason = False, error
        if not found:
            raise errors.Refusal(
                f"train.writers={name} needs the package {package} ({reason}): "
                f"pip install {package}, or leave it out"
            )


def _numbers(record) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record but its step; those of a list as name/0, name/1."""
    for name, value in record.items():
        several = isinstance(value, list | tuple)
        for index, element in enumerate(value if several else [value]):
            if name != "step" and isinstance(element, numbers.Real):
                yield f"{name}/{index}" if several else name, float(element)


def _kept_id(run_dir) -> str:
    """Return the run's id at wandb, the same after every resume."""
    path = run_dir.path / "wandb.json"
    if not path.exists():
        run_dir.write_json(path, {"id": secrets.token_hex(4)})
    return json.loads(path.read_bytes())["id"]
