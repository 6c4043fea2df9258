"""What README.md and docs/ name exists: functions, fields, configs, links, messages."""

import ast
import dataclasses
import importlib
import pathlib
import re

import numpy as np
import pytest

from ddpm_jax import main
from ddpm_jax.config import modes, reading

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
HOLE = "\0"  # stands for {…} in the messages of the source


def found(pattern):
    """Return [(page, match)] of a pattern over all pages and configs' docstrings."""
    texts = [(page, page.read_text()) for page in PAGES]
    texts += [
        (path, ast.get_docstring(ast.parse(path.read_text()))) for path in CONFIGS
    ]
    return [
        pytest.param(match, id=f"{page.name}:{match}")
        for page, text in texts
        for match in sorted(set(re.findall(pattern, text)))
    ]


def resolve(name):
    """Return the object of a dotted name; fields of dataclasses count."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            fields = (
                {f.name for f in dataclasses.fields(value)}
                if (dataclasses.is_dataclass(value))
                else set()
            )
            value = None if part in fields else getattr(value, part)
        return value
    raise ModuleNotFoundError(name)


# `-m ddpm_jax.main` and paths such as ddpm_jax/config.py are no dotted names of ours.
@pytest.mark.parametrize("name", found(r"(?<![\w/.-])ddpm_jax(?:\.[A-Za-z_]\w*)+"))
def test_every_dotted_name_exists(name):
    resolve(name)


@pytest.mark.parametrize("field", found(r"--(?:no)?config\.([a-z_0-9.]+[a-z_0-9])"))
def test_every_field_exists(field):
    reading.check_name(field, where="the documentation")


@pytest.mark.parametrize(
    "override", found(r"(--config\.[a-z_0-9.]+=[^\s`;)\\]+?)[.,]?(?=[\s`;)\\])")
)
def test_every_value_is_one_that_its_field_takes(override, tmp_path, monkeypatch):
    if override.endswith(".npy"):  # which is read at once
        np.save(tmp_path / "betas.npy", np.full(10, 0.1))
    monkeypatch.chdir(tmp_path)
    config = f"--config={ROOT / 'configs' / 'digits.py'}"
    assert main.parse(["ddpm-jax", config, override]) is not None


@pytest.mark.parametrize("name", found(r"configs/\w+\.py"))
def test_every_config_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("mode", found(r"--mode=(\w+)"))
def test_every_mode_exists(mode):
    assert mode in modes.MODES


def headings(text):
    """Return the anchors that GitHub gives to the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]
    return set(plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target.read_text()), link


# ---- messages ------------------------------------------------------------------------


def messages():
    """Return every string of the package, with holes where values are put in."""
    texts = []
    for path in [*(ROOT / "ddpm_jax").rglob("*.py"), *CONFIGS]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else HOLE
                    for part in node.values
                ]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def quoted():
    """Return the messages that the first column of troubleshooting.md quotes.

    They are the lines `| `message` | …` below "By message"; … stands for any value.
    """
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    _, below = page.split("\n## By message\n")
    return re.findall(r"^\| `([^`]+)` \|", below, re.M)


@pytest.fixture(scope="module")
def source():
    return messages()


def is_said(message, source):
    """Return whether a string of the source has the parts of `message` in order."""
    fragments = [part.strip() for part in message.split("…") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, fragments)), re.S)
    return any(pattern.search(text) for text in source)


@pytest.mark.parametrize("message", quoted())
def test_every_quoted_message_is_in_the_source(message, source):
    assert max(map(len, message.split("…"))) > 5, "nothing to recognise it by"
    assert is_said(message, source)


def test_messages_are_matched_part_by_part_in_order():
    source = ["file {} does not exist", "unknown field \0 in \0"]
    assert is_said("unknown field … in", source)
    assert not is_said("in … unknown field", source)
    assert not is_said("unknown field … exist", source)
