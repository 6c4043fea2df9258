"""Hints at configs: true in a checkout, beside one, and in a plain install."""

import pathlib
import re

import pytest

from ddpm_jax import main
from ddpm_jax.config import examples
from ddpm_jax.core import errors


def told(*arguments):
    with pytest.raises(errors.Refusal) as refusal:
        main.parse(["ddpm-jax", *arguments])
    return str(refusal.value)


ASKING = (
    (),
    ("--mode=sample",),
    ("--config=configs/digits.py",),
    ("--config=configs/none.py",),
    ("--config=digits",),
)


@pytest.mark.parametrize("arguments", ASKING)
def test_a_hint_names_a_config_that_is_there(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a checkout, used from elsewhere
    named = re.search(r"[ =](/\S+/digits\.py)", told(*arguments))
    assert pathlib.Path(named[1]).is_file()
    assert main.parse(["ddpm-jax", f"--config={named[1]}"]).config.data.name == "digits"


@pytest.mark.parametrize("arguments", ASKING)
def test_a_plain_install_says_how_to_write_a_config(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examples, "source", lambda: tmp_path / "site-packages")
    sentence = told(*arguments)
    assert "not with this install" in sentence
    assert "--config=configs/digits.py" not in sentence
    # What it says works.
    (tmp_path / "mine.py").write_text(
        "import ddpm_jax.config\n\n\ndef get_config():\n"
        "    config = ddpm_jax.config.base()\n    config.seed = 3\n    return config\n"
    )
    advised = re.search(r"--config=mine\.py", sentence)[0]
    assert main.parse(["ddpm-jax", advised]).config.seed == 3
