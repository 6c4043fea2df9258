"""Configs by name: the same from every directory, from a checkout and from a wheel."""

import pathlib
import re
import shutil

import pytest

from ddpm_jax import main
from ddpm_jax.config import examples
from ddpm_jax.core import errors

ROOT = pathlib.Path(__file__).parent.parent
OWN = (
    "import ddpm_jax.config\n\n\ndef get_config():\n"
    "    config = ddpm_jax.config.base()\n    config.seed = 3\n    return config\n"
)


def told(*arguments):
    with pytest.raises(errors.Refusal) as refusal:
        main.parse(["ddpm-jax", *arguments])
    return str(refusal.value)


def read(spec):
    return main.parse(["ddpm-jax", f"--config={spec}"])


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wheel(tmp_path_factory, monkeypatch):
    """Take configs from where a wheel has them; nothing lies beside the package."""
    package = tmp_path_factory.mktemp("site-packages") / "ddpm_jax"
    shutil.copytree(ROOT / "configs", package / "configs")
    monkeypatch.setattr(examples, "package", lambda: package)
    return package


# ---- names and paths -----------------------------------------------------------------


@pytest.mark.parametrize("installed", ["checkout", "wheel"])
def test_a_name_is_found_from_any_directory(installed, elsewhere, request):
    if installed == "wheel":
        request.getfixturevalue("wheel")
    command = read("digits")
    assert command.config.data.name == "digits"
    assert command.workdir == "runs/digits"
    # One that imports its neighbour.
    assert not read("digits_unconditional").config.model.class_conditional


def test_a_name_takes_a_variant(elsewhere, wheel):
    command = read("published:64x64_diffusion")
    assert command.config.data.image_size == (64, 64)
    assert command.workdir == "runs/published-64x64_diffusion"


def test_every_config_of_the_checkout_has_its_name():
    assert set(examples.names()) == {p.stem for p in (ROOT / "configs").glob("*.py")}


@pytest.mark.parametrize("here", ["digits.py", "configs/digits.py"])
def test_a_name_means_the_packaged_one_and_says_so(here, elsewhere, capsys):
    (elsewhere / "configs").mkdir()
    (elsewhere / here).write_text(OWN)
    assert read("digits").config.data.name == "digits"
    said = capsys.readouterr().out
    assert f"not {here}; --config={here} is yours" in said
    assert read(here).config.seed == 3  # a path is a path
    assert capsys.readouterr().out == ""


def test_a_copy_of_the_packaged_one_is_no_matter(elsewhere, capsys):
    shutil.copy(ROOT / "configs" / "digits.py", "digits.py")
    (elsewhere / "digits").mkdir()  # nor a folder of that name, such as of images
    assert read("digits").config.data.name == "digits"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("spec", ["digits.py", "./digits", "configs/digits"])
def test_a_path_is_never_a_name(spec, elsewhere):
    assert "does not exist: did you mean digits?" in told(f"--config={spec}")


# ---- hints ---------------------------------------------------------------------------

ASKING = ((), ("--mode=sample",), ("--config=configs/none.py",), ("--config=digist",))


@pytest.mark.parametrize("arguments", ASKING)
def test_a_hint_names_a_config_that_is_there(arguments, elsewhere):
    named = re.search(r"(--config=|did you mean )(\w+)", told(*arguments))
    assert read(named[2]).config.data.name == "digits"


@pytest.mark.parametrize("arguments", [*ASKING, ("--config=digits",)])
def test_an_install_without_configs_says_how_to_write_one(
    arguments, elsewhere, monkeypatch
):
    empty = elsewhere / "site-packages" / "ddpm_jax"
    monkeypatch.setattr(examples, "package", lambda: empty)
    sentence = told(*arguments)
    assert "this install lacks those of ddpm_jax" in sentence
    assert "--config=digits" not in sentence
    # What it says works.
    (elsewhere / "mine.py").write_text(OWN)
    advised = re.search(r"--config=(mine\.py)", sentence)[1]
    assert read(advised).config.seed == 3
