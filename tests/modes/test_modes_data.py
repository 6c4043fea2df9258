"""The data page: written in any case, and honest about what training would do."""

import numpy as np
import pytest
from PIL import Image
from small_runs import ROOT

from ddpm_jax import main

CONFIG = f"--config={ROOT / 'configs' / 'folder.py'}"


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (16, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"{i}.png")
    return tmp_path / "photos"


def look(photos, workdir):
    return main.main(
        ["ddpm-jax", "--mode=data", f"{CONFIG}:{photos}", f"--workdir={workdir}"]
    )


def test_the_page_tells_what_is_there(photos, tmp_path, capsys):
    assert look(photos, tmp_path / "run") == 0
    page = (tmp_path / "run" / "data.html").read_text()
    for text in ("Training can start", "16 × 24 pixels", "cat", "50.0 %"):
        assert text in page
    assert "16x24x3, 2 classes: training can start" in capsys.readouterr().out


def test_the_page_is_there_even_if_training_would_stop(photos, tmp_path, capsys):
    (photos / "cat" / "page.png").write_text("<html>not found</html>")
    assert look(photos, tmp_path / "run") == 1
    assert "page.png is an HTML page" in capsys.readouterr().err
    page = (tmp_path / "run" / "data.html").read_text()
    assert "Training would stop" in page
    assert "cat/page.png is an HTML page" in page


def test_the_directory_can_become_a_run(photos, tmp_path):
    from ddpm_jax.runs import directory

    look(photos, tmp_path / "run")
    assert directory.RunDir.create(tmp_path / "run").data_page.exists()


def test_data_without_files(tmp_path, capsys):
    config = f"--config={ROOT / 'configs' / 'digits.py'}"
    workdir = f"--workdir={tmp_path / 'run'}"
    assert main.main(["ddpm-jax", "--mode=data", config, workdir]) == 0
    page = (tmp_path / "run" / "data.html").read_text()
    assert "Unreadable" not in page
    assert "8 × 8 pixels" in page
