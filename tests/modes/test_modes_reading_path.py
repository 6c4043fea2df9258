"""docs/reading_path.md names the calls from `main` to the loss and files that exist."""

import re
import traceback

import pytest
from small_runs import ROOT, TINY

from ddpm_jax import main
from ddpm_jax.diffusion import losses
from ddpm_jax.runtime import compilation

PAGE = (ROOT / "docs" / "reading_path.md").read_text()
MOST_CALLS = 7


class Reached(Exception):
    """Raised where the loss would be computed."""


def test_the_calls_are_those_of_a_run(tmp_path, monkeypatch):
    def training_losses(*args, **options):
        raise Reached

    monkeypatch.setattr(losses, "training_losses", training_losses)
    # Not compiled, the step is called where the loop calls it.
    monkeypatch.setattr(
        compilation, "compile_ahead", lambda step, *shapes, what: step.__wrapped__
    )
    with pytest.raises(Reached) as caught:
        main.main(["ddpm-jax", *TINY, f"--workdir={tmp_path / 'run'}"])
    package = str(ROOT / "ddpm_jax") + "/"
    calls = [
        f"{frame.filename.removeprefix(package).removesuffix('.py')}.{frame.name}"
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if frame.filename.startswith(package)
    ]
    listed = re.findall(r"^\d\. `([\w/.]+)`", PAGE, re.M)
    assert listed == [*calls, "diffusion/losses.training_losses"]
    assert len(listed) - 1 <= MOST_CALLS


def test_the_files_and_what_to_read_in_them_exist():
    rows = re.findall(r"^\| \d+ \| `(ddpm_jax/[\w/]+\.py)` \| (.*) \|$", PAGE, re.M)
    assert len(rows) == 12
    for path, text in rows:
        source = (ROOT / path).read_text()
        for name in re.findall(r"`(\w+)`", text):
            assert re.search(rf"^(def|class) {name}\b", source, re.M), (path, name)
