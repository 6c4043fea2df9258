"""Command lines that nearly say something: each gets the answer, or what says it."""

import pathlib
import platform

import jax
import pytest

import ddpm_jax
from ddpm_jax import main
from ddpm_jax.core import errors

OF_FIELD = "for that field of the config"
NONE = "from ddpm_jax import config\n\n\ndef get_config():\n    return config.base()\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work where there is a folder of configs, and nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").write_text(NONE)
    (tmp_path / "configs" / "letters.py").write_text(NONE)
    (tmp_path / "empty").mkdir()


def told(*arguments):
    with pytest.raises(errors.Refusal) as refusal:
        main.parse(["ddpm-jax", *arguments])
    return str(refusal.value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--train.steps=3", "--config.train.steps=3"),
        ("-train.steps=3", "--config.train.steps=3"),
        ("--train.stepz=3", "--config.train.steps=3"),
        ("--learning_rate=1e-3", "--config.train.learning_rate=1e-3"),
        ("--train.steps", "--config.train.steps=…"),
        (
            "--steps=3",
            "--config.train.steps=3, --config.evaluation.steps=3 or "
            "--config.sampling.steps=3",
        ),
        (
            "--seed=3",
            "--config.seed=3, --config.evaluation.seed=3 or --config.sampling.seed=3",
        ),
    ],
)
def test_a_field_without_config(argument, said):
    sentence = f"{argument} is no flag: say {said} {OF_FIELD}"
    assert told("--config=configs/digits.py", argument) == sentence


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("digits.py", "configs/digits.py"),
        ("letters", "configs/letters.py"),
        ("configs/digits", "configs/digits.py"),
        ("letters:photos", "configs/letters.py:photos"),
    ],
)
def test_a_config_by_its_name(spec, meant):
    name = spec.partition(":")[0]
    sentence = f"config file {name!r} does not exist: did you mean {meant}?"
    assert told(f"--config={spec}") == sentence


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            "configs",
            "config 'configs' is a folder: choose one of configs/digits.py, "
            "configs/letters.py",
        ),
        ("empty", "config 'empty' is a folder: give the path of a .py file"),
        (
            "configs/digits.py:foo",
            "config file 'configs/digits.py' takes no variant, and 'foo' was given: "
            "say configs/digits.py alone",
        ),
        (
            "configs/none.py",
            "config file 'configs/none.py' does not exist; there are "
            "configs/digits.py, configs/letters.py",
        ),
    ],
)
def test_a_config_that_is_no_file_or_has_no_variants(spec, sentence):
    assert told(f"--config={spec}") == sentence


@pytest.mark.parametrize("mode", ["train", "sample", "evaluate", "compare"])
def test_a_mode_without_its_flag(mode):
    sentence = f"unexpected argument {mode!r}: a mode is given as --mode={mode}"
    assert told(mode) == sentence
    assert told(mode, "--workdir=runs/digits") == sentence
    assert told("--workdir=runs/digits", mode) == sentence


@pytest.mark.parametrize(
    "arguments",
    [["--train.steps=3"], ["--config=letters"], ["--config=configs"], ["sample"]],
)
def test_near_misses_end_with_status_1(arguments, capsys):
    assert main.main(["ddpm-jax", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not pathlib.Path("runs").exists()


@pytest.mark.parametrize("arguments", [["help"], ["help", "sample"], ["--help"]])
def test_help_is_help(arguments, capsys):
    assert main.main(["ddpm-jax", *arguments]) == 0
    printed = capsys.readouterr()
    assert "--mode=sample" in printed.out
    assert "Flags of every mode:" in printed.out
    assert not printed.err


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_told(arguments, capsys):
    assert main.main(["ddpm-jax", *arguments]) == 0
    assert capsys.readouterr().out == (
        f"ddpm_jax {ddpm_jax.__version__}, jax {jax.__version__}, "
        f"Python {platform.python_version()}\n"
    )
