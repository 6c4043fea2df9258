"""Names of earlier versions, in files, in runs and on the command line."""

import json
import pathlib

import pytest

from ddpm_jax import config as config_lib
from ddpm_jax import main
from ddpm_jax.config import reading
from ddpm_jax.core import errors

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"


@pytest.fixture
def renamed(monkeypatch):
    """Some names as a later version might have changed them."""
    names = {"train.num_steps": "train.steps", "old.rate": "train.learning_rate"}
    names |= {"train.mirror": "data.flip", "train.length": "train.steps"}
    values = {("sampling.method", "ddpm"): "ancestral", ("seed", 1): 7}
    monkeypatch.setattr(reading, "RENAMED", names)
    monkeypatch.setattr(reading, "RENAMED_VALUES", {**reading.RENAMED_VALUES, **values})


def parse(*arguments):
    return main.parse(["ddpm-jax", *arguments]).config


# ---- what was stored -----------------------------------------------------------------


def stored(**sections):
    return reading.from_dict(sections, where="config.json")


def test_old_names_and_values_are_read(renamed, capsys):
    config = stored(
        train={"num_steps": 5}, old={"rate": 1}, sampling={"method": "ddpm"}, seed=1
    )
    assert (config.train.steps, config.train.learning_rate) == (5, 1.0)
    assert (config.sampling.method, config.seed) == ("ancestral", 7)
    assert capsys.readouterr().out == ""  # nobody can change what is stored


def test_a_value_is_renamed_in_its_field_and_its_type_only(renamed):
    assert stored(model={"remat": True}).model.remat == "blocks"
    assert stored(model={"remat": False}).model.remat == "none"
    assert stored(model={"initialisation": "ho"}).model.initialisation == "ddpm"
    assert stored(data={"flip": True}).data.flip is True
    assert stored(sampling={"seed": 1}).sampling.seed == 1
    assert reading.present_value("seed", True) is True  # which equals 1 for Python


def test_the_field_of_an_old_name_has_the_type_of_the_new_one(renamed):
    with pytest.raises(errors.Refusal, match=r"^train.steps = 'many'"):
        stored(train={"num_steps": "many"})


def test_both_names_of_a_field_are_refused(renamed):
    with pytest.raises(errors.Refusal) as caught:
        stored(train={"num_steps": 5, "steps": 6})
    sentence = str(caught.value)
    for part in ("train.num_steps", "config.json", "give train.steps alone"):
        assert part in sentence
    with pytest.raises(errors.Refusal, match=r"^train.num_steps and train.length in"):
        stored(train={"num_steps": 5, "length": 5})


def test_a_run_of_an_earlier_version_opens(renamed, tmp_path):
    values = config_lib.base().to_dict()
    values["train"]["num_steps"] = values["train"].pop("steps") + 1
    values["model"]["remat"] = True
    text = json.dumps({"config": values, "data": {}})
    (tmp_path / "config.json").write_text(text)
    config = parse(f"--workdir={tmp_path}")
    assert config.train.steps == config_lib.base().train.steps + 1
    assert config.model.remat == "blocks"
    assert "num_steps" not in config.train


# ---- files ---------------------------------------------------------------------------


def write(path, *lines):
    body = "".join(f"    made.{line}\n" for line in lines)
    path.write_text(
        "from ddpm_jax import config\n\n\ndef get_config():\n"
        f"    made = config.base()\n{body}    return made\n"
    )
    return f"--config={path}"


def test_a_file_may_use_old_names_and_is_told_the_new_ones(renamed, tmp_path, capsys):
    given = write(
        tmp_path / "own.py", "train.num_steps = 5", "sampling.method = 'ddpm'"
    )
    config = parse(given)
    assert config.train.steps == 5
    assert config.sampling.method == "ancestral"
    assert capsys.readouterr().out.splitlines() == [
        "sampling.method=ddpm is now sampling.method=ancestral",
        "train.num_steps is now train.steps",
    ]


def test_a_file_with_both_names_is_refused(renamed, tmp_path):
    given = write(tmp_path / "own.py", "train.num_steps = 5", "train.steps = 6")
    with pytest.raises(errors.Refusal, match=r"own.py are one field"):
        parse(given)


# ---- the command line ----------------------------------------------------------------


def test_old_names_work_on_the_command_line(renamed, capsys):
    command = main.parse(
        ["x", DIGITS, "--config.train.num_steps=9", "--config.train.mirror"]
    )
    assert command.config.train.steps == 9
    assert command.config.data.flip is True
    assert {"train.steps", "data.flip"} <= command.given
    assert "train.num_steps" not in command.given
    assert capsys.readouterr().out.splitlines() == [
        "train.num_steps is now train.steps",
        "train.mirror is now data.flip",
    ]
    assert parse(DIGITS, "--noconfig.train.mirror").data.flip is False


def test_old_values_work_on_the_command_line(renamed, capsys):
    assert parse(DIGITS, "--config.sampling.method=ddpm").sampling.method == "ancestral"
    assert parse(DIGITS, "--config.seed=1").seed == 7
    for given in ("--config.model.remat=true", "--config.model.remat"):
        assert parse(DIGITS, given).model.remat == "blocks"
    assert parse(DIGITS, "--noconfig.model.remat").model.remat == "none"
    assert "sampling.method=ddpm is now sampling.method=ancestral\n" in (
        capsys.readouterr().out
    )


def test_both_names_on_the_command_line_are_refused(renamed):
    names = ["--config.train.steps=9", "--config.train.num_steps=9"]
    for given in (names, names[::-1]):
        with pytest.raises(errors.Refusal, match=r"in the command line are one field"):
            parse(DIGITS, *given)
    twice = ["--config.train.num_steps=8", "--config.train.num_steps=9"]
    assert parse(DIGITS, *twice).train.steps == 9  # as everywhere, the last one


def test_the_tables_lead_to_fields_of_the_schema():
    fields = dict(reading.leaves(config_lib.base().to_dict()))
    assert set(reading.RENAMED.values()) <= fields.keys()
    assert not reading.RENAMED.keys() & fields.keys()
    assert {path for path, _ in reading.RENAMED_VALUES} <= fields.keys()
