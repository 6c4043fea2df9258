"""Repeating a row of the papers' tables: convert, sample, score, compare.

    python -m ddpm_jax.main --mode=reproduce                           lists the rows
    … --mode=reproduce --row=ddpm/cifar10                              what it needs
    … --mode=reproduce --row=ddpm/cifar10 --source=FILE --workdir=DIR  does it

DIR/model/             the imported run, with its samples and cards
DIR/classifier/        the one that guides, where one does
DIR/<row>.json         published and measured values, and the commands

Each part is a command of its own, which is printed and can be run alone. What is there
is not made again: the same command goes on where it stopped.
"""

import json
import math
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from ddpm_jax.convert import published, published_rows
from ddpm_jax.convert.formats import inception as inception_weights
from ddpm_jax.core import errors
from ddpm_jax.runs import directory
from ddpm_jax.runtime import files
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say

PLACES = {
    "openai": "https://openaipublic.blob.core.windows.net/",
    "diffusers": "https://huggingface.co/",
}
CARD = re.compile(r"card: (.+\.json)$")
MIB = 2**20
PROGRAM = (sys.executable, "-m", "ddpm_jax.main")
LOOK = 0.2  # seconds between two looks at a command under way


class Stopped(Exception):
    """A part was stopped on request; what is there is kept."""


def run(workdir, row, source, classifier, reference, inception, num_samples) -> None:
    """Repeat a row, or tell what it needs; without one list all.

    Args:
        workdir: where the runs and the result go.
        row: a key of `published_rows.ROWS`, or "".
        source, classifier: files of weights.
        reference: what samples are compared with; "" for the row's data.
        inception: weights of the feature network; "" for $DDPM_JAX_INCEPTION.
        num_samples: a number in text, for a trial; "" for the paper's.

    Raises:
        Refusal: what is missing or does not belong to the row, or a part that failed.
    """
    if not row:
        for name, each in published_rows.ROWS.items():
            say(f"{name:<58} {described(each)}")
        say("what a row needs: --mode=reproduce --row=NAME")
        return
    wanted = errors.choose("row", published_rows.ROWS, row)
    count = samples_of(wanted, num_samples)
    if not source:
        for line in needs(row, wanted):
            say(line)
        return
    check(row, wanted, workdir, source, classifier, reference, inception)
    folder = pathlib.Path(workdir)
    try:
        imported(source, folder / "model", wanted.weights)
        if wanted.classifier:
            imported(classifier, folder / "classifier", (wanted.classifier,))
        arguments = evaluation(wanted, folder, count, reference, inception)
        cards = [
            pathlib.Path(found) for line in call(arguments) if (found := card(line))
        ]
    except Stopped:
        say("stopped on request: the same command goes on")
        return
    results = compared(wanted, [json.loads(path.read_text()) for path in cards])
    write(folder, row, wanted, results, count, arguments)
    for line in summary(wanted, results, count):
        say(line)


# ---- what a row is -------------------------------------------------------------------


def described(row: published_rows.Row) -> str:
    """Return e.g. "DDPM, table 1: fid 3.17; diffusion_cifar10_model/…"."""
    values = ", ".join(f"{name} {value:g}" for name, value in row.expected.items())
    return f"{row.paper}: {values}; {published.PUBLISHED[row.weights[0]].file}"


def needs(name: str, row: published_rows.Row) -> list[str]:
    """Return what a row needs and where it lies, in a line each.

    The authors published no digests: a file is known by the names and shapes of all its
    tensors, and its import by the agreement with PyTorch.
    """
    lines = [f"{name}: {described(row)}"]
    lines += [f"  --source: {place_of(weights)}" for weights in row.weights]
    if row.classifier:
        lines.append(f"  --classifier: {place_of(row.classifier)}")
    if row.is_of_samples:
        where = row.reference or "the images that the network was trained on"
        if row.data:
            where = f"the training data, data.name={row.data}, if it is not given"
        lines.append(f"  --reference: {where}")
        lines.append("  --inception: weights of FID's network, see docs/evaluation.md")
        settings = ", ".join(f"{k}={v}" for k, v in row.sampling.items())
        lines.append(f"  {published_rows.SAMPLES:,} images, {settings}")
    if row.note:
        lines.append(f"  note: {row.note}")
    lines.append(
        f"then: --mode=reproduce --row={name} --source=FILE --workdir=runs/reproduced"
    )
    return lines


def place_of(weights: str) -> str:
    """Return where published weights lie and how large they are."""
    entry = published.PUBLISHED[weights]
    where = PLACES.get(entry.format, "") + entry.url_path
    size = f"about {entry.parameters * 4 / MIB:,.0f} MiB"
    at = (
        where
        if entry.url_path
        else f"{entry.file}, in the folder that its authors link"
    )
    return f"{at} ({size}, {entry.tensors} tensors)"


def samples_of(row, given: str) -> int:
    """Return how many images are made.

    Raises:
        Refusal: no such number.
    """
    if not given:
        return published_rows.SAMPLES if row.is_of_samples else 0
    if not given.isdecimal() or int(given) < 2:
        raise errors.Refusal(
            f"--num_samples={given}: give a number of at least 2, or leave it out for "
            f"the paper's {published_rows.SAMPLES:,}"
        )
    return int(given)


def check(name, row, workdir, source, classifier, reference, inception) -> None:
    """Refuse what is missing, before anything is converted.

    Raises:
        Refusal: names the flag and what to give.
    """
    if not workdir:
        raise errors.Refusal(
            f"--row={name} needs --workdir, where the run and the result go: such as "
            "--workdir=runs/reproduced"
        )
    if row.classifier and not classifier:
        raise errors.Refusal(
            f"--row={name} needs --classifier: {place_of(row.classifier)}"
        )
    if classifier and not row.classifier:
        raise errors.Refusal(f"--classifier={classifier}: no classifier guides {name}")
    if row.is_of_samples and not (row.data or reference):
        where = row.reference or "a folder of the images that it was trained on"
        raise errors.Refusal(f"--row={name} needs --reference: {where}")
    if reference and not pathlib.Path(reference).exists():
        raise errors.Refusal(f"--reference={reference} does not exist: give its path")
    if row.is_of_samples:
        inception_weights.find(inception)


# ---- the parts -----------------------------------------------------------------------


def call(arguments: Sequence[str]) -> list[str]:
    """Run a command of the program in a process of its own; return its lines.

    Raises:
        Stopped: it was stopped on request.
        Refusal: it failed.
    """
    say("$ python -m ddpm_jax.main " + shlex.join(arguments))
    lines = []

    def read(stream):
        for line in stream:
            lines.append(line.rstrip("\n"))
            say(lines[-1])

    with (
        preemption.StopRequest() as stop,
        subprocess.Popen(
            [*PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
        ) as command,
    ):
        reader = threading.Thread(target=read, args=[command.stdout], daemon=True)
        reader.start()
        while command.poll() is None and not stop.requested:
            time.sleep(LOOK)
        if stop.requested and command.poll() is None:
            # A terminal has told it already: twice within a second is one request.
            command.send_signal(signal.SIGTERM)
        status = command.wait()
        reader.join()
    if stop.requested:
        raise Stopped
    if status:
        raise errors.Refusal(
            f"--mode={arguments[0].partition('=')[2]} ended with status {status}, see "
            "above; the same command goes on once that is mended"
        )
    return lines


def imported(source: str, workdir: pathlib.Path, names: Sequence[str]) -> None:
    """Import weights, unless they are there, and check that they are the row's.

    Raises:
        Refusal: other weights.
    """
    run_dir = directory.RunDir.at(workdir)
    if not run_dir.config.exists():
        call(["--mode=convert", f"--source={source}", f"--workdir={workdir}"])
    record = run_dir.read_config().get("imported") or {}
    if record.get("published") not in names:
        known = record.get("published") or "no published file that is known"
        raise errors.Refusal(
            f"{workdir} holds {known}, and this row is of {' or '.join(names)}: give "
            "that file under its own name, and another --workdir"
        )


def evaluation(row, folder, count, reference, inception) -> list[str]:
    """Return the arguments of the command that makes the images and scores them."""
    fields = {"evaluation.metric": ",".join(row.metrics)}
    if row.is_of_samples:
        fields |= {f"sampling.{name}": value for name, value in row.sampling.items()}
        fields["evaluation.num_samples"] = count
    elif count:
        fields["evaluation.num_images"] = count
    if row.classifier:
        fields["sampling.classifier"] = folder / "classifier"
    if row.data:
        fields["data.name"] = row.data
    if reference:
        fields["evaluation.reference"] = reference
    if inception:
        fields["evaluation.inception"] = inception
    return [
        "--mode=evaluate",
        f"--workdir={folder / 'model'}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def card(line: str) -> str:
    """Return the path of the card that a line of an evaluation names, or ""."""
    found = CARD.search(line)
    return found[1] if found else ""


# ---- the comparison ------------------------------------------------------------------


class Result(NamedTuple):
    """A published value and ours.

    Attributes:
        metric: its name.
        published, measured: values.
        tolerance: how far they may be apart.
    """

    metric: str
    published: float
    measured: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the two are as near as rounding and other seeds let them be."""
        apart = abs(self.measured - self.published)
        return math.isfinite(apart) and apart <= self.tolerance * (1 + 1e-9)


def compared(row: published_rows.Row, cards: Sequence[dict]) -> list[Result]:
    """Return published and measured values.

    Raises:
        Refusal: a value that no card has.
    """
    measured = {found["metric"]: found["value"] for found in cards}
    if missing := row.expected.keys() - measured.keys():
        raise errors.Refusal(
            f"the evaluation wrote no card of {', '.join(sorted(missing))}: run the "
            "same command again"
        )
    return [
        Result(name, value, measured[name], published_rows.tolerance(name, value))
        for name, value in row.expected.items()
    ]


def write(folder, name, row, results, count, arguments) -> None:
    """Write <row>.json: what was published, what was measured, and by which command."""
    path = folder / f"{name.replace('/', '-')}.json"
    files.write_json(
        path,
        {
            "row": name,
            "paper": row.paper,
            "num_samples": count,
            "is_trial": is_trial(row, count),
            "results": [
                {**result._asdict(), "agrees": result.agrees} for result in results
            ],
            "command": list(arguments),
            "note": row.note,
        },
    )
    say(f"result: {path}")


def is_trial(row, count) -> bool:
    """Return whether fewer images were made than in the paper."""
    return count < published_rows.SAMPLES if row.is_of_samples else count > 0


def summary(row, results: Sequence[Result], count) -> list[str]:
    """Return the comparison, in a line each."""
    lines = [f"{'':<14}{'published':>10}{'here':>10}{'may differ by':>15}"]
    for one in results:
        verdict = "agrees" if one.agrees else "differs"
        lines.append(
            f"{one.metric:<14}{one.published:>10g}{one.measured:>10.4g}"
            f"{one.tolerance:>15.3g}  {verdict}"
        )
    if row.note:
        lines.append(f"note: {row.note}")
    if is_trial(row, count):
        lines.append(f"a trial with {count:,} images says nothing of the row")
    elif all(one.agrees for one in results):
        lines.append("the row is reproduced")
    else:
        lines.append("the row is not reproduced")
    return lines
