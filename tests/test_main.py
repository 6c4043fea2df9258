"""The command line: what it refuses, in one sentence, with nothing lost."""

import json
import pathlib

import jax
import numpy as np
import pytest
from bad_input import OF_A_NEW_RUN, OF_A_RUN
from jax.experimental.compilation_cache import compilation_cache

from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import process as build_process
from ddpm_jax.config import modes

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"
SMALL = (
    "--config.model.channels=8",
    "--config.model.norm_groups=4",
    "--config.model.num_res_blocks=1",
)
CACHE_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the programs of these tests away from the user's."""
    before = {name: getattr(jax.config, name) for name in CACHE_OPTIONS}
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DDPM_JAX_INCEPTION", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def refused(capsys):
    """Return a function: arguments → the sentence, or a failure."""

    def run(*arguments):
        status = main.main(["ddpm-jax", *arguments])
        error = capsys.readouterr().err
        assert status == 1
        assert error.startswith("error: ")
        assert error.endswith("\n")
        assert error.count("\n") == 1, error
        return error

    return run


def check_sentence(sentence, fragments):
    missing = [fragment for fragment in fragments if fragment not in sentence]
    assert not missing, sentence


def content(folder):
    """Return every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A run on the digits that has no checkpoint yet, written as the contract says."""
    workdir = tmp_path_factory.mktemp("runs") / "untrained"
    workdir.mkdir()
    config = main.parse(["ddpm-jax", DIGITS, *SMALL]).config
    facts = build_data.DataInfo.of(build_data.dataset(config, "train"))
    text = json.dumps({"config": config.to_dict(), "data": vars(facts), "versions": {}})
    (workdir / "config.json").write_text(text)
    (workdir / "metrics.jsonl").write_text('{"step": 1}\n')
    return workdir


# ---- a new run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "fragments"), OF_A_NEW_RUN, ids=[case[0] for case in OF_A_NEW_RUN]
)
def test_a_new_run_is_refused(overrides, fragments, refused, tmp_path):
    given = [f"--config.{override}" for override in overrides.split()]
    sentence = refused(DIGITS, f"--workdir={tmp_path / 'run'}", *SMALL, *given)
    check_sentence(sentence, fragments)
    # The directory would otherwise be in the way of the corrected command.
    assert not (tmp_path / "run").exists()


# ---- arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["--config=digits", "--workdir"]),
        (["--config.train.steps=5"], ["--config=", "--workdir"]),
        (["configs/digits.py"], ["'configs/digits.py'", "--name=value"]),
        ([DIGITS, "--config.train.steps", "5"], ["'5'", "--name=value"]),
        ([DIGITS, "--config.train.steps"], ["--config.train.steps"]),
        ([DIGITS, "--moed=sample"], ["moed", "--help"]),
        ([DIGITS, "--mode=trian"], ["'trian'", "train", "sample", "evaluate"]),
        (["--config=configs/none.py"], ["configs/none.py", "does not exist"]),
        (["--config=notes.txt"], ["notes.txt"]),
        (["--mode=sample", "--workdir=nowhere"], ["nowhere", "no run", "--config"]),
        (["--mode=evaluate", "--workdir=nowhere"], ["nowhere", "no run", "--config"]),
        (["--workdir=nowhere"], ["nowhere", "no run", "--config"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_are_refused(arguments, fragments, refused, tmp_path):
    (tmp_path / "notes.txt").write_text("no Python")
    check_sentence(refused(*arguments), fragments)
    assert list(content(tmp_path)) == ["notes.txt"]


@pytest.mark.parametrize(
    ("source", "fragments"),
    [
        ("x = 1\n", ["own.py", "get_config"]),
        ("def get_config(:\n", ["own.py", "SyntaxError"]),
        ("import no_such_module_here\n", ["own.py", "no_such_module_here"]),
        ("def get_config():\n    return {}\n", ["own.py", "get_config"]),
        ("def get_config():\n    pass\n", ["own.py", "get_config"]),
        (
            "from ddpm_jax import config\n\n\ndef get_config():\n"
            "    made = config.base()\n    made.train.stepz = 3\n    return made\n",
            ["own.py", "train.stepz", "train.steps"],
        ),
        (
            "from ddpm_jax import config\n\n\ndef get_config():\n"
            "    made = config.base()\n    made.train.steps = 'many'\n"
            "    return made\n",
            ["own.py", "many", "int"],
        ),
    ],
)
def test_a_file_without_a_config_is_refused(source, fragments, refused, tmp_path):
    (tmp_path / "own.py").write_text(source)
    check_sentence(refused("--config=own.py", "--workdir=run"), fragments)
    assert not (tmp_path / "run").exists()


def test_a_variant_that_the_file_does_not_have_is_refused(refused):
    check_sentence(refused(f"{DIGITS}:big", "--workdir=run"), ["digits.py", "config"])


def test_help_is_no_error(capsys):
    assert main.main(["ddpm-jax", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("--config", "--workdir", "--mode", *modes.MODES):
        assert word in shown


def test_debug_shows_where_a_refusal_comes_from():
    with pytest.raises(ValueError, match="trian"):
        main.main(["ddpm-jax", DIGITS, "--mode=trian", "--debug"])


# ---- directories ---------------------------------------------------------------------


def test_a_foreign_directory_is_left_alone(refused, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    sentence = refused(DIGITS, *SMALL, f"--workdir={folder}")
    check_sentence(sentence, ["thesis", "chapter.txt", "--workdir"])
    assert content(folder) == {"chapter.txt": b"mine"}


@pytest.mark.parametrize("text", ['{"name": "other"}', "[1, 2]", '{"config": {}', ""])
@pytest.mark.parametrize("mode", ["train", "sample"])
def test_another_programs_config_json_is_left_alone(text, mode, refused, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "config.json").write_text(text)
    config = [DIGITS, *SMALL] if mode == "train" else []
    sentence = refused(*config, f"--mode={mode}", f"--workdir={folder}")
    check_sentence(sentence, ["project", "--workdir"])
    assert content(folder) == {"config.json": text.encode()}


def test_a_place_that_cannot_be_written_is_refused(refused, tmp_path):
    # Under a file, because root may write into any directory whatever its mode says.
    (tmp_path / "file").write_text("mine")
    below = refused(DIGITS, *SMALL, f"--workdir={tmp_path / 'file' / 'run'}")
    check_sentence(below, ["file/run", "cannot be written", "--workdir"])
    itself = refused(DIGITS, *SMALL, f"--workdir={tmp_path / 'file'}")
    check_sentence(itself, ["file", "not a directory", "--workdir"])
    assert content(tmp_path)["file"] == b"mine"


# ---- an existing run -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "overrides", "fragments"),
    OF_A_RUN,
    ids=[" ".join(c[:2]) for c in OF_A_RUN],
)
def test_a_run_refuses_and_stays_as_it_is(
    mode, overrides, fragments, refused, untrained
):
    before = content(untrained)
    given = [f"--config.{override}" for override in overrides.split()]
    sentence = refused(f"--mode={mode}", f"--workdir={untrained}", *given)
    check_sentence(sentence, fragments)
    assert content(untrained) == before


def rewritten(untrained, folder, **changes):
    """Copy a run with other fields, given as section__name=value."""
    saved = json.loads((untrained / "config.json").read_text())
    for name, value in changes.items():
        section, field = name.split("__")
        saved["config"][section][field] = value
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(saved))
    return folder


def test_guidance_needs_label_drop_out(refused, untrained, tmp_path):
    run = rewritten(untrained, tmp_path / "run", train__label_dropout=0.0)
    before = content(run)
    sentence = refused(
        "--mode=sample", f"--workdir={run}", "--config.sampling.guidance_scale=2"
    )
    check_sentence(sentence, ["guidance_scale", "2.0", "label_dropout", "scale 1"])
    assert content(run) == before


def test_labels_need_classes(refused, untrained, tmp_path):
    run = rewritten(
        untrained,
        tmp_path / "run",
        train__label_dropout=0.0,
        model__class_conditional=False,
    )
    before = content(run)
    sentence = refused(
        "--mode=sample", f"--workdir={run}", "--config.sampling.labels=3"
    )
    check_sentence(sentence, ["labels", "3", "class_conditional=True"])
    assert content(run) == before


def test_a_run_of_other_data_is_refused(refused, untrained, tmp_path):
    run = rewritten(untrained, tmp_path / "run")
    saved = json.loads((run / "config.json").read_text())
    saved["data"]["num_examples"] = 99
    (run / "config.json").write_text(json.dumps(saved))
    before = content(run)
    sentence = refused(f"--workdir={run}")
    check_sentence(sentence, ["99", "1438", "--workdir"])
    assert content(run) == before


def test_a_run_written_by_a_newer_schema_is_refused(refused, untrained, tmp_path):
    run = rewritten(untrained, tmp_path / "run", train__future_field=1)
    check_sentence(refused(f"--workdir={run}"), ["train.future_field", "config.json"])


@pytest.mark.parametrize(
    "arguments",
    [[], [DIGITS, *SMALL], ["--mode=sample"], ["--mode=evaluate"], ["--mode=diagnose"]],
    ids=" ".join,
)
def test_a_run_of_a_newer_version_is_refused(arguments, refused, untrained, tmp_path):
    run = rewritten(untrained, tmp_path / "run")
    saved = json.loads((run / "config.json").read_text())
    saved["versions"] = {"ddpm_jax": "9.0"}
    (run / "config.json").write_text(json.dumps(saved))
    before = content(run)
    sentence = refused(f"--workdir={run}", *arguments)
    check_sentence(sentence, ["run/config.json was made by ddpm_jax 9.0", "install"])
    assert content(run) == before


def test_betas_of_a_file_are_kept_by_the_run(tmp_path):
    np.save("betas.npy", np.linspace(0.1, 0.5, 5))
    given = ["diffusion.schedule=custom", "diffusion.betas_path=betas.npy"]
    given = [f"--config.{text}" for text in [*given, "diffusion.num_steps=5"]]
    config = main.parse(["ddpm-jax", DIGITS, *given]).config
    np.testing.assert_allclose(config.diffusion.betas, [0.1, 0.2, 0.3, 0.4, 0.5])
    pathlib.Path("betas.npy").unlink()
    assert build_process.schedule(config).num_steps == 5
