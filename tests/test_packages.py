"""What a release consists of: one version, valid forms, and all that it names."""

import pathlib
import re
import tomllib

import pytest
import yaml

import ddpm_jax
from ddpm_jax import main
from ddpm_jax.config import modes
from ddpm_jax.runtime import versions

ROOT = pathlib.Path(__file__).parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
SETUP = (ROOT / "setup.py").read_text()
EXTRAS = set(re.findall(r'^        "(\w+)": \[?\*?[A-Z"\[]', SETUP, re.M))


def test_the_version_is_written_once_and_the_rest_agrees():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## (\d\S*)$", changes, re.M)[0]
    assert citation["version"] == newest  # what can be cited is released
    number, _, is_dev = ddpm_jax.__version__.partition(".dev")
    if is_dev:
        assert versions.numbers(number) > versions.numbers(newest)
        assert "\n## Unreleased\n" in changes
    else:
        assert number == newest
    assert ddpm_jax.__version__ not in SETUP
    assert "version" not in tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_everything_of_the_manifest_is_there():
    lines = (ROOT / "MANIFEST.in").read_text().splitlines()
    for line in lines:
        command, *names = line.split()
        if command in ("include", "graft"):
            assert all((ROOT / name).exists() for name in names), line


def test_images_install_extras_that_there_are():
    found = sorted((ROOT / "docker").glob("*.Dockerfile"))
    assert len(found) == 2
    for file in found:
        text = file.read_text()
        asked = re.search(r'"/source\[([\w,]+)\]"', text)[1].split(",")
        assert set(asked) <= EXTRAS, file
        entry = re.search(r'^ENTRYPOINT \["tini", "--", "([\w-]+)"\]', text, re.M)[1]
        assert f'"{entry}=ddpm_jax.main:console"' in SETUP


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms_are_as_their_reader_wants_them(form):
    found = yaml.safe_load(form.read_text())
    if form.name == "config.yml":
        assert found["blank_issues_enabled"] is True
        return
    assert found["name"]
    assert found["description"]
    names = [field["id"] for field in found["body"] if field["type"] != "markdown"]
    assert len(names) == len(set(names)) > 1
    for field in found["body"]:
        assert field["type"] in ("markdown", "textarea", "input")
        assert field["attributes"].get("label") or field["type"] == "markdown"


def test_llms_txt_names_what_there_is():
    text = (ROOT / "llms.txt").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / link).is_file(), link
    listed = re.search(r"Modes: (.*?)\.\n", text, re.S)[1]
    assert set(re.findall(r"`(?:--mode=)?(\w+)`", listed)) == set(modes.MODES)
    command = re.search(r"`python -m ddpm_jax\.main (.+)`", text)[1]
    assert main.parse(["", *command.split()]).config.train.steps == 30
