"""The notebooks of docs/gallery: whole as text; each runs and finds what it says."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
GALLERY = ROOT / "docs" / "gallery"
NOTEBOOKS = sorted(p for p in GALLERY.glob("*.md") if p.stem != "index")
SECONDS = 120  # on two cores; several times that is given to a busy machine
EVERY = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def cells(notebook):
    """Return the code cells of a notebook in MyST's text format."""
    text = notebook.read_text()
    return re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", text, re.S | re.M)


def pictures(notebook):
    return re.findall(r"!\[[^\]]+\]\(([\w.]+)\)", notebook.read_text())


@EVERY
def test_a_notebook_is_one_that_jupytext_reads(notebook):
    text = notebook.read_text()
    assert re.match(r"---\njupytext:\n.*\nkernelspec:\n.*\n---\n", text, re.S)
    assert text.count("```{code-cell}") == len(cells(notebook)) > 1
    jupytext = pytest.importorskip("jupytext")
    read = jupytext.read(notebook)
    code = [cell.source for cell in read.cells if cell.cell_type == "code"]
    assert code == [cell.strip("\n") for cell in cells(notebook)]


@EVERY
def test_a_notebook_asserts_and_shows(notebook):
    tree = ast.parse("\n".join(cells(notebook)))
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) > 1
    assert pictures(notebook)
    source = "".join(cells(notebook))
    for name in pictures(notebook):
        assert f'savefig("{name}"' in source
        assert (GALLERY / name).is_file()


def test_the_index_lists_every_notebook():
    index = (GALLERY / "index.md").read_text()
    linked = re.findall(r"\]\((\w+)\.md\)", index)
    listed = re.findall(r"^(\w+)$", index.partition(":hidden:")[2], re.M)
    assert sorted(linked) == sorted(listed) == [path.stem for path in NOTEBOOKS]


@pytest.mark.slow
@EVERY
def test_a_notebook_runs(notebook, tmp_path):
    script = tmp_path / f"{notebook.stem}.py"
    script.write_text("\n\n".join(cells(notebook)))
    # One device, as a reader has; nothing of the checkout but the package.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    begun = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * SECONDS,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    for name in pictures(notebook):
        assert (tmp_path / name).stat().st_size > 1000
    print(f"{notebook.stem}: {time.perf_counter() - begun:.0f} s")
