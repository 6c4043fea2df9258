"""What README.md shows is there, and the Python example gives what it says."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_python_example_samples_its_gaussian(capsys):
    text = (ROOT / "docs" / "python.md").read_text()
    *_, example = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(example, "python.md", "exec"), {})
    # The data are N(0, 1): 2,000 numbers and 50 deterministic steps.
    assert abs(float(capsys.readouterr().out) - 1) < 0.1


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_every_config_is_listed():
    listed = (ROOT / "docs" / "features.md").read_text()
    for path in (ROOT / "configs").glob("*.py"):
        assert f"(../configs/{path.name})" in listed


def test_it_stays_short():
    assert len(TEXT.splitlines()) <= 150
