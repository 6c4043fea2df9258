"""The site: every page and public module is on it, and links lead somewhere there."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Rooms whose every module stands in the reference; of others only some do.
WHOLE = ["api", "core", "diffusion", "models", "training", "sampling", "metrics"]
WHOLE.append("text")


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("site_conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def read(conf, docname):
    source = [(DOCS / f"{docname}.md").read_text()]
    conf.read_source(None, docname, source)
    return source[0]


def test_every_page_is_in_the_contents():
    blocks = re.findall(
        r"```\{toctree\}(.*?)```", (DOCS / "index.md").read_text(), re.S
    )
    listed = re.findall(r"^(\w+(?:/\w+)?)$", "".join(blocks), re.M)
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert sorted(listed) == sorted([*pages, "gallery/index"])


@pytest.mark.parametrize("room", WHOLE)
def test_every_module_is_in_the_reference(room):
    listed = set(
        re.findall(r"^   (ddpm_jax[\w.]+)$", (DOCS / "reference.md").read_text(), re.M)
    )
    for path in (ROOT / "ddpm_jax" / room).glob("*.py"):
        name = f"ddpm_jax.{room}"
        if path.stem != "__init__":
            assert f"{name}.{path.stem}" in listed
        elif len(path.read_text().splitlines()) > 10:
            assert name in listed
    assert {n for n in listed if importlib.util.find_spec(n) is None} == set()


@pytest.mark.parametrize(
    ("docname", "there", "link"),
    [
        ("index", "docs/runs.md", "[Runs](runs.md)"),
        ("index", "launch/README.md", "[launching](launching.md)"),
        ("index", "benchmarks/RESULTS.md", "(results.md)"),
        ("scaling", "../launch/README.md", "(launching.md)"),
        ("your_network", "../README.md", "(index.md)"),
        ("gallery/guidance", "../guidance.md", "[guidance](../guidance.md)"),
        ("features", "../configs/digits.py", "[digits](<path:../configs/digits.py>)"),
    ],
)
def test_a_link_out_of_the_documents_leads_to_the_site(conf, docname, there, link):
    elsewhere = conf.ELSEWHERE.get(docname)
    source = ROOT / elsewhere if elsewhere else DOCS / f"{docname}.md"
    assert f"]({there})" in source.read_text()
    assert link in read(conf, docname)


def test_the_start_is_the_readme_and_keeps_its_contents(conf):
    text = read(conf, "index")
    assert text.startswith("# ddpm_jax")
    assert "## Measured" in text
    assert "## Documents" not in text  # the contents stand beside every page
    assert text.count("```{toctree}") == (DOCS / "index.md").read_text().count(
        "{toctree}"
    )


def test_notebooks_are_shown_as_python(conf):
    text = read(conf, "gallery/oracle")
    assert "{code-cell}" not in text
    assert "```python\nimport jax" in text


@pytest.mark.parametrize(
    ("plain", "made"),
    [
        ("x_0 of `network.apply`", r"x\_0 of ``network.apply``"),
        ("q(x_t|x_0) * 2", r"q(x\_t\|x\_0) \* 2"),
        (":param x_0, **rest: of `a`", r":param x_0, \*\*rest: of ``a``"),
        ("* a bullet * 2", r"* a bullet \* 2"),
        ("`key`s", r"``key``\ s"),
    ],
)
def test_docstrings_are_plain_text(conf, plain, made):
    lines = [plain]
    conf.read_docstring(None, "", "", None, None, lines)
    assert lines == [made]


def test_what_is_set_off_in_a_docstring_is_literal(conf):
    lines = ["The law:", "", "    q(x_t | x_0) = *", "    r", "", "and `so` on", ""]
    conf.read_docstring(None, "", "", None, None, lines)
    assert lines == [
        "The law:",
        "",
        "::",
        "",
        "    q(x_t | x_0) = *",
        "    r",
        "",
        "and ``so`` on",
        "",
    ]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    assert (tmp_path / "search.html").is_file()
    found = (tmp_path / "searchindex.js").read_text()
    assert "training_losses" in found
