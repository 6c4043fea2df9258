"""Whether the data of a run is still the data that it was trained on."""

import dataclasses

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.data import marks as marks_lib
from ddpm_jax.data import sources
from ddpm_jax.runs import directory
from ddpm_jax.runtime import files
from ddpm_jax.runtime.console import say

HASHES = ("fingerprint",)  # facts that tell a reader nothing


def read(run_dir: directory.RunDir) -> dict[str, marks_lib.Mark] | None:
    """Return the marks that a run keeps of its data's files.

    None where it keeps none: it was made before there were marks, or its data are no
    files, or its list is damaged, which is said.
    """
    try:
        return marks_lib.from_bytes(run_dir.data_files.read_bytes())
    except FileNotFoundError:
        return None
    except errors.Refusal as error:
        say(
            f"warning: {run_dir.data_files}: {error}; the data is compared by names, "
            "sizes and labels alone, and the list is written again"
        )
        return None


def write(run_dir: directory.RunDir, marks: dict[str, marks_lib.Mark]) -> None:
    """Keep the marks of the data's files in a run, if the data are files."""
    if marks:
        files.write_bytes(run_dir.data_files, marks_lib.to_bytes(marks))


def check(saved, facts: DataInfo, dataset: sources.Dataset) -> dict:
    """Return the marks of the data's files; refuse other data than the run's.

    A run without marks is compared by what it keeps, the fingerprint in its facts.

    Args:
        saved: the run (`trained_run.SavedRun`); None for a new one.
        facts: of the data that is there now.
        dataset: its training split.

    Raises:
        Refusal: names the files that differ, or the facts where no files are known; of
            several processes also that one has other data than process 0.
    """
    known = read(saved.run_dir) if saved else None
    now = dataset.marks(known or {})
    changed = marks_lib.differences(known, now) if known else []
    if changed:
        changed.append(f"these names are below {dataset.place}")
    if saved and not changed and saved.facts != facts:
        changed = _facts_that_differ(saved.facts, facts, dataset)
    if changed:
        raise errors.Refusal(
            f"the data of {saved.run_dir.path} has changed: {'; '.join(changed)}; "
            "restore it, or choose another --workdir"
        )
    build_data.check_alike(dataset, now)
    return now


def is_same(run_dir: directory.RunDir, facts: DataInfo, dataset) -> bool:
    """Return whether data is what a run was trained on, as far as the run can tell."""
    known = read(run_dir) or {}
    same = dataset.fingerprint() == facts.fingerprint
    return same and (not known or dataset.marks(known) == known)


def _facts_that_differ(before, now, dataset):
    pairs = [
        (field.name, getattr(before, field.name), getattr(now, field.name))
        for field in dataclasses.fields(DataInfo)
    ]
    lines = [
        f"{name} was {old} and is {new}"
        for name, old, new in pairs
        if old != new and name not in HASHES
    ]
    where = dataset.place or dataset.name
    return lines or [f"names, sizes or labels in {where} are others than then"]
