"""A run whose data is changed between two trainings."""

import json
import shutil

import numpy as np
import pytest
import small_runs

from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import data_marks, trained_run
from ddpm_jax.core import errors
from ddpm_jax.runs import directory


def save(root, name, value):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((8, 8), value, np.uint8))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A folder and a run of 3 steps on it; only to be read."""
    place = tmp_path_factory.mktemp("changes")
    for i in range(30):  # ten classes, as the digits have: one compiled step for both
        save(place / "photos", f"{i % 10}/{i:02}.npy", i)
    with small_runs.quick_compilation(cache):
        assert main.main(["ddpm-jax", *command(place), "--config.train.steps=3"]) == 0
    return place


def command(place):
    return [
        *small_runs.TINY,
        "--config.data.name=folder",
        "--config.train.evaluate_every=0",
        "--config.evaluation.num_images=0",
        f"--config.data.path={place / 'photos'}",
        f"--workdir={place / 'run'}",
    ]


@pytest.fixture
def place(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def checked(place):
    """What is said of the data of a run by what trains it on."""
    saved = trained_run.read(place / "run")
    saved.config.data.path = str(place / "photos")
    found = build_data.dataset(saved.config, "train", say=lambda line: None)
    return data_marks.check(saved, build_data.DataInfo.of(found), found)


def test_changed_data_are_refused_by_name_and_restored_data_go_on(place, tell):
    stored = (place / "run" / "config.json").read_bytes()
    save(place / "photos", "7/07.npy", 99)
    told = tell(*command(place), "--config.train.steps=4")
    assert told.status == 1
    assert "7/07.npy" in told.err
    assert str(place / "photos") in told.err
    assert json.loads(stored)["data"]["fingerprint"] not in told.err
    assert told.err.count("\n") == 1
    assert (place / "run" / "config.json").read_bytes() == stored
    save(place / "photos", "7/07.npy", 7)
    # As a run that was made before there were marks.
    kept = directory.RunDir(place / "run").data_files
    kept.unlink()
    assert tell(*command(place), "--config.train.steps=4").status == 0
    assert kept.exists()
    save(place / "photos", "7/07.npy", 99)
    with pytest.raises(errors.Refusal, match=r"7/07\.npy"):
        checked(place)


@pytest.mark.parametrize("kept", [None, b"", b"nonsense"])
def test_without_marks_the_old_fingerprint_tells(place, capsys, kept):
    path = directory.RunDir(place / "run").data_files
    path.unlink()
    if kept is not None:
        path.write_bytes(kept)
    assert len(checked(place)) == 30
    assert (str(path) in capsys.readouterr().out) == (kept is not None)
    (place / "photos" / "5/05.npy").write_bytes(
        (place / "photos" / "5/05.npy").read_bytes() + b"\0"
    )
    with pytest.raises(errors.Refusal, match=str(place / "photos")):
        checked(place)
    save(place / "photos", "5/extra.npy", 1)
    with pytest.raises(errors.Refusal, match="num_examples was"):
        checked(place)


def test_other_hosts_must_see_the_same_content(place):
    ours = checked(place)
    save(place / "photos", "5/05.npy", 99)
    saved = trained_run.read(place / "run")
    saved.config.data.path = str(place / "photos")
    theirs = build_data.dataset(saved.config, "train", say=lambda line: None)
    assert theirs.fingerprint() == saved.facts.fingerprint
    assert not data_marks.is_same(saved.run_dir, saved.facts, theirs)
    assert theirs.marks(ours) != ours
