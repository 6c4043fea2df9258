"""Captions on the data page: shown, counted, said where a run reads none."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image
from small_runs import ROOT

from ddpm_jax import main
from ddpm_jax.builders import captions, data
from ddpm_jax.core import errors
from ddpm_jax.data import marks
from ddpm_jax.runs import directory
from ddpm_jax.text import words

CONFIG = f"--config={ROOT / 'configs' / 'folder.py'}"
NUMBER = 24


@pytest.fixture
def photos(tmp_path):
    """Image i has one caption of two to four words, "odd" words in one caption each."""
    rng = np.random.default_rng(0)
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(NUMBER):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i:02}.png")
        text = " ".join(["red", "dot", "here", "now"][: 2 + i % 3])
        (place / f"{i:02}.txt").write_text(text)
    return place


def look(photos, tmp_path, *more):
    arguments = ["--mode=data", f"{CONFIG}:{photos}", f"--workdir={tmp_path / 'run'}"]
    code = main.main(["ddpm-jax", *arguments, *more])
    return code, (tmp_path / "run" / "data.html").read_text()


def facts(page):
    """Return {name: value} of the facts of the captions."""
    section = page.partition('<section id="captions">')[2].partition("</section>")[0]
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", section))


def test_captions_are_shown_and_counted(photos, tmp_path, capsys):
    code, page = look(photos, tmp_path)
    assert code == 0
    told = facts(page)
    assert told["captions"] == f"{NUMBER}, from the .txt files beside the images"
    assert told["images without caption"] == "0"
    assert told["tokenizer"] == "words, 5 tokens"  # four words and the padding
    assert told["tokens of a caption"] == "2 … 4, half of them at most 3"
    assert told["tokens that a network reads"] == "4"
    assert "<figcaption>red dot here</figcaption>" in page
    assert "training can start" in capsys.readouterr().out


def test_captions_that_are_not_read_are_said_by_this_mode_alone(
    photos, tmp_path, capsys
):
    code, page = look(photos, tmp_path, "--config.model.text_layers=0")
    assert code == 0
    assert "a run of this config reads none" in page
    assert facts(page)["tokens of a caption"].startswith("2 … 4")
    (photos / "03.txt").unlink()
    code, page = look(photos, tmp_path, "--config.model.text_layers=0")
    assert code == 0
    assert "images without captions: 1" in page
    (photos / "04.txt").write_bytes(b"\xff\xfe\0")
    code, page = look(photos, tmp_path, "--config.model.text_layers=0")
    assert code == 0
    assert "04.txt is in UTF-16" in page


def test_missing_captions_are_listed_and_training_would_stop(photos, tmp_path, capsys):
    (photos / "03.txt").unlink()
    (photos / "04.txt").write_text("\n")
    code, page = look(photos, tmp_path)
    assert code == 1
    assert facts(page)["images without caption"] == "2"
    assert "<li>03.png</li><li>04.png</li>" in page
    assert "2 of 24 images of " in capsys.readouterr().err


def test_captions_that_are_cut_are_listed(photos, tmp_path, capsys):
    options = "--config.data.tokenizer=bytes", "--config.model.text_context=12"
    code, page = look(photos, tmp_path, *options)
    assert code == 0
    # "red dot" has 7 letters, "red dot here" 12, "red dot here now" 16.
    assert facts(page)["tokens of a caption"].startswith("7 … 16")
    assert facts(page)["captions that lose their end"] == "1"
    assert "16 of 12 tokens" in page
    assert "the longest 16; model.text_context=16 holds them all" in page


def test_words_that_a_run_does_not_know_are_named(photos, tmp_path):
    arguments = ["ddpm-jax", f"{CONFIG}:{photos}", f"--workdir={tmp_path / 'run'}"]
    config = main.parse(arguments).config
    kept = words.from_captions(["red dot here"]).to_json()
    text = data.TextFacts(kept, ("red dot",))
    facts_kept = data.DataInfo((16, 16, 3), 256, NUMBER, None, (), "…", text)
    run_dir = directory.RunDir.create(tmp_path / "run")
    stored = captions.write(run_dir, facts_kept)
    run_dir.write_json(run_dir.config, {"config": config.to_dict(), "data": stored})
    code, page = look(photos, tmp_path)
    assert code == 0
    assert facts(page)["tokenizer"] == "words, 4 tokens, of the run"
    assert facts(page)["unknown words"] == "1"
    assert "words that the run does not know: 1 (&#x27;now&#x27;)" in page
    assert "<li>now: 1</li>" in page


# ---- what the config makes of captions -----------------------------------------------


def config_of(photos):
    return main.parse(["ddpm-jax", f"{CONFIG}:{photos}", "--workdir=x"]).config


def test_the_config_reads_captions_that_are_there(photos):
    config = config_of(photos)
    assert config.model.text_layers > 0
    assert (config.data.flip, config.train.label_dropout) == (False, 0.1)
    assert config.data.tokenizer == "words"
    dataset, facts = captions.of_training(config, None)
    batch = dataset.fetch(np.arange(3))
    assert batch["tokens"].shape == batch["token_mask"].shape == (3, 4)
    known = facts.text.tokenizer["words"]
    said = [[known[t] for t in row if t < len(known)] for row in batch["tokens"]]
    assert [" ".join(one) for one in said] == dataset.captions(np.arange(3))


def test_few_captions_are_notes(photos):
    for i in range(NUMBER // 2 + 1):
        (photos / f"{i:02}.txt").unlink()
    config = config_of(photos)
    assert config.model.text_layers == 0
    assert config.data.flip
    assert captions.of_training(config, None)[1].text is None


def test_captions_that_cannot_be_read_are_refused_unless_they_are_not_to_be(photos):
    (photos / "00.txt").write_bytes(b"\xe9")
    config = config_of(photos)
    with pytest.raises(errors.Refusal, match="not in UTF-8"):
        captions.of_training(config, None)
    config.model.text_layers = 0
    assert captions.of_training(config, None)[1].text is None


def test_captions_of_rare_words_are_read_as_bytes(photos):
    for i in range(NUMBER):
        (photos / f"{i:02}.txt").write_text(f"thing number {i} of name {chr(97 + i)}")
    config = config_of(photos)
    assert config.data.tokenizer == "bytes"
    assert config.model.text_context == len("thing number 23 of name x")


def test_a_run_notices_another_caption_and_texts_that_lose_their_end(photos, capsys):
    config = config_of(photos)
    config.model.text_context = 2
    dataset, facts = captions.of_training(config, None)
    assert "have more than 2 tokens and lose their end" in capsys.readouterr().out
    known = dataset.marks({})
    (photos / "05.txt").write_text("a new one")
    changed, _ = captions.of_training(config, None)
    assert data.DataInfo.of(changed) != dataclasses.replace(facts, text=None)
    [told] = marks.differences(known, changed.marks(known))
    assert told == "1 file (05.png) is of another caption"


def test_mirrored_images_keep_names_of_classes_alone(photos):
    config = config_of(photos)
    config.data.flip = True
    with pytest.raises(errors.Refusal, match=r"data\.flip=True mirrors images"):
        captions.of_training(config, None)
    for i in range(NUMBER):
        place = photos / ("cat" if i % 2 else "dog")
        place.mkdir(exist_ok=True)
        (photos / f"{i:02}.png").rename(place / f"{i:02}.png")
    config.data.captions = "one {class}"
    assert set(captions.of_training(config, None)[1].text.captions) == {
        "one cat",
        "one dog",
    }
