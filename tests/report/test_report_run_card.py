"""card.md: what it tells of a run, and that it leaves alone what the user wrote."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from ddpm_jax import config as config_lib
from ddpm_jax.config import paths
from ddpm_jax.report import run_card
from ddpm_jax.runs import directory

BASE = config_lib.base().to_dict()
CARD = {
    "metric": "proxy_fd",
    "value": 2.25,
    "standard_error": 0.125,
    "unit": "",
    "protocol": {
        "checkpoint": 40,
        "sampler": "dpmpp_2m",
        "steps": 15,
        "reference": "/secret/faces.npz",
        "num_samples": 1000,
        "weaker": "runs/weak@3",
        "weaker_scale": 1.5,
        "classifier": "",
        "classifier_scale": 1.0,
        "notes": ["few | samples"],
    },
}


OF_DATA = (("captions", '`"auto"`'), ("labels", '`"auto"`'), ("path", '`""`'))


@pytest.fixture
def run(tmp_path):
    """Return a run of a config of three changes, one card and two pictures."""
    folder = tmp_path / "digits"
    config = config_lib.base()
    config.train.steps = 40
    config.model.class_conditional = True
    for field in paths.FIELDS:
        section, name = field.split(".")
        config[section][name] = f"/secret/{name}"
    stored = {
        "config": config.to_dict(),
        "data": {
            "shape": [8, 8, 1],
            "num_examples": 1438,
            "levels": 17,
            "num_classes": 10,
            "class_names": list("0123456789"),
            "fingerprint": "abc",
        },
        "versions": {"ddpm_jax": "0.2.0", "jax": "0.10.2"},
    }
    for name in ("checkpoints", "evaluation", "samples/ddim-5"):
        (folder / name).mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "checkpoints" / "40.sha256.json").write_text("{}")
    (folder / "checkpoints" / "8.sha256.json").write_text("{}")
    (folder / "evaluation" / "proxy_fd_x.json").write_text(json.dumps(CARD))
    picture = Image.fromarray(np.zeros((8, 8), np.uint8))
    picture.save(folder / "samples" / "ddim-5" / "grid.png")
    picture.save(folder / "samples" / "step_40.png")
    return directory.RunDir.open_existing(folder)


def test_it_tells_what_the_run_is(run):
    text = run_card.write(run, base=BASE).read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "unknown"
    assert head["datasets"] == ["digits"]
    assert "8×8×1" in text
    assert "step 40 of 40" in text
    assert "| training examples | 1438 |" in text
    assert "secret" not in text
    # Of the recipe exactly what differs from the base.
    recipe = text.partition("## Recipe")[2].partition("## Metrics")[0]
    rows = [line for line in recipe.splitlines() if line.startswith("| `")]
    assert rows == [
        *(f'| `data.{name}` | `"{name}"` | {usual} |' for name, usual in OF_DATA),
        "| `model.class_conditional` | `true` | `false` |",
        '| `train.init_from` | `"init_from"` | `""` |',
        "| `train.steps` | `40` | `100000` |",
    ]


def test_numbers_stand_with_their_protocol(run):
    text = run_card.write(run, base=BASE).read_text()
    row = next(line for line in text.splitlines() if line.startswith("| proxy_fd"))
    assert "2.2500 ± 0.1250" in row
    assert "sampler dpmpp_2m, steps 15, num samples 1000" in row
    assert "reference faces.npz, " in row
    assert "weaker runs/weak@3, weaker scale 1.5" in row
    assert "classifier" not in row
    assert row.count("|") == 5
    assert "`proxy_fd_x.json`" in row


def test_pictures_are_there(run):
    text = run_card.write(run, base=BASE).read_text()
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert sorted(links) == ["samples/ddim-5/grid.png", "samples/step_40.png"]
    assert all((run.path / link).is_file() for link in links)


def test_what_the_user_wrote_stays(run):
    path = run_card.write(run, base=BASE)
    text = path.read_text().replace("license: unknown", "license: cc-by-4.0")
    text = text.replace("Say here what it is for", "For my aunt")
    path.write_text(text.replace("proxy_fd", "rubbish"))
    (run.evaluation / "more.json").write_text(json.dumps({**CARD, "metric": "kid"}))
    again = run_card.write(run, base=BASE).read_text()
    assert "license: cc-by-4.0" in again
    assert "For my aunt" in again
    assert "rubbish" not in again
    assert "| kid |" in again


def test_a_card_of_the_users_own_is_left_alone(run):
    own = run.path / "card.md"
    own.write_text("# Mine\n")
    assert run_card.write(run, base=BASE) is None
    assert own.read_text() == "# Mine\n"


def test_a_card_in_another_encoding_is_the_users(run):
    own = run.path / "card.md"
    own.write_bytes("# Für mich\n".encode("latin-1"))
    assert run_card.write(run, base=BASE) is None
    assert own.read_bytes() == "# Für mich\n".encode("latin-1")


def test_a_card_that_cannot_be_written_is_told(run, capsys):
    (run.path / "card.md").mkdir()
    assert run_card.write_or_say(run, base=BASE) is None
    (told,) = capsys.readouterr().out.splitlines()
    assert f"{run.path / 'card.md'} cannot be written" in told
    assert told.endswith(": no card.md")


def test_a_run_that_was_never_scored_says_so(run):
    (run.evaluation / "proxy_fd_x.json").unlink()
    assert "Not evaluated yet" in run_card.write(run, base=BASE).read_text()


def test_an_import_names_its_file(run):
    stored = json.loads(run.config.read_text())
    stored["imported"] = {"weights": "weights imported from a.pt", "sha256": "f00"}
    run.config.write_text(json.dumps(stored))
    text = run_card.write(run, base=BASE).read_text()
    assert "weights imported from a.pt, SHA-256 `f00`" in text
    assert "step 40" not in text.partition("## Use")[0]


@pytest.mark.parametrize("conditional", [True, False])
def test_a_folder_for_diffusers_has_a_model_card(run, tmp_path, conditional):
    stored = json.loads(run.config.read_text())
    stored["config"]["model"]["class_conditional"] = conditional
    run.config.write_text(json.dumps(stored))
    path = run_card.write(run, base=BASE)
    path.write_text(path.read_text().replace("license: unknown", "license: mit"))
    folder = tmp_path / "exported"
    folder.mkdir()
    index = {
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    text = run_card.for_diffusers(run, folder, base=BASE).read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "mit"
    assert head["library_name"] == "diffusers"
    assert ("unconditional-image-generation" in head["tags"]) is not conditional
    assert ("DDPMPipeline.from_pretrained" in text) is not conditional
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert (folder / "samples_0.png").read_bytes()
