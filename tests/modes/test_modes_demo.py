"""--mode=demo without its browser: jobs, command lines, uploads, refusals."""

import base64
import errno
import io
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from ddpm_jax import config as config_lib
from ddpm_jax import main
from ddpm_jax.builders import trained_run
from ddpm_jax.core import errors
from ddpm_jax.demo import (
    explain,
    jobs,
    page,
    server,
    tab_animate,
    tab_between,
    tab_how,
    tab_inpaint,
    tab_restore,
    tab_sample,
    tab_vary,
    uploads,
    view,
    worker,
)
from ddpm_jax.demo.player import Player, check_time
from ddpm_jax.modes import demo
from ddpm_jax.sampling import sampler as sampler_lib

RANDOM = np.random.default_rng(3)
GREY = RANDOM.integers(0, 256, (8, 8, 1), np.uint8)
HOLE = np.zeros((8, 8), bool)
HOLE[5:, 1:] = True


@pytest.fixture(scope="module")
def player(first_run):
    """The tiny run, opened once; it is only read."""
    workdir = str(first_run[0])
    command = main.parse(["ddpm-jax", "--mode=demo", f"--workdir={workdir}"])
    return Player(command.config, trained_run.read(workdir), workdir)


@pytest.fixture
def kept():
    return uploads.of_array(GREY)


def address_of(mask):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mask, np.uint8) * 255).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---- what is shown is what the command line makes ------------------------------------


@pytest.fixture
def by_command(player, trained, tell, tmp_path, monkeypatch):
    """Return a function: job, files → the images that its command line makes."""

    def make(job, files=()):
        for name, array in files:
            (tmp_path / name).write_bytes(uploads.file_of(array))
        monkeypatch.chdir(tmp_path)
        before = set(trained.rglob("samples.npz"))
        words = shlex.split(job.command.replace(player.workdir, str(trained)))
        assert words[:3] == ["python", "-m", "ddpm_jax.main"]
        told = tell(*words[3:])
        assert told.status == 0, told.err
        (made,) = set(trained.rglob("samples.npz")) - before
        return np.load(made)["arr_0"]

    return make


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 7, "number": 8},
        {"label": "3", "guidance": 2.5, "method": "ddim", "eta": 0.5, "steps": 5},
    ],
)
def test_samples_are_those_of_their_command_line(player, by_command, given):
    job = jobs.sample(player, **given)
    *_, last = player.play(job)
    assert last.is_finished
    assert np.std(last.images) > 1
    np.testing.assert_array_equal(last.images, by_command(job))


@pytest.mark.parametrize("box", ["", "1,5,7,3"])
def test_filled_holes_are_those_of_their_command_line(player, by_command, kept, box):
    hole = uploads.box_of(box, kept) if box else uploads.hole_of(address_of(HOLE), kept)
    np.testing.assert_array_equal(hole.fitted, HOLE)
    way = "guided" if box else "repaint, fast"
    job = tab_inpaint.job_of(player, kept, hole, box=box, way=way, label="5", seed=2)
    *_, last = player.play(job)
    files = [("picture.png", GREY), ("mask.png", HOLE)][: 1 if box else 2]
    made = by_command(job, files)
    np.testing.assert_array_equal(last.images, made)
    np.testing.assert_array_equal(made[:, ~HOLE], np.stack([GREY] * 4)[:, ~HOLE])


def test_variations_are_those_of_their_command_line(player, by_command, kept):
    job = tab_vary.job_of(player, kept, strength=0.5, label="5", steps=20)
    *_, last = player.play(job)
    made = by_command(job, [("picture.png", GREY)])
    np.testing.assert_array_equal(last.images, made)
    assert "--config.sampling.steps=12" in job.arguments  # of 24, from the half
    job = tab_vary.job_of(player, kept, strength=0, label="5")
    *_, last = player.play(job)
    np.testing.assert_array_equal(last.images, np.stack([GREY] * 4))


def test_restored_pictures_are_those_of_their_command_line(player, by_command, kept):
    job, measured = tab_restore.job_of(player, kept, noise=0.1, label="5", seed=2)
    *_, last = player.play(job)
    made = by_command(job, [("picture.png", GREY)])
    np.testing.assert_array_equal(last.images, made)
    assert measured.values.shape == (1, 4, 4, 1)


def test_measurements_that_no_picture_of_the_run_has_are_not_offered(player, kept):
    assert "grey" not in tab_restore.operators(player)
    facts = types.SimpleNamespace(shape=(7, 8, 3))
    known = tab_restore.operators(types.SimpleNamespace(facts=facts))
    assert known == ["blur:1", "missing:0.5", "denoise", "grey"]
    with pytest.raises(errors.Refusal, match="nothing is to be restored"):
        tab_restore.job_of(player, kept, operator="denoise", noise=0, label="5")
    with pytest.raises(errors.Refusal, match="the noise is 2: give a number of 0 … 1"):
        tab_restore.job_of(player, kept, noise=2, label="5")


def test_ways_are_those_of_their_command_line(player, by_command):
    job = tab_between.job_of(player, numbers=(0, 3), method="ddim", seed=1)
    *_, last = player.play(job)
    assert len(last.images) == tab_between.FRAMES
    np.testing.assert_array_equal(last.images, by_command(job))


@pytest.mark.parametrize("kind", ["denoise", "walk"])
def test_animations_are_those_of_their_command_line(player, by_command, trained, kind):
    job = tab_animate.job_of(player, kind=kind, frames=4, label="3")
    *_, last = player.play(job)
    made = by_command(job)
    np.testing.assert_array_equal(last.images, made)
    (file,) = trained.rglob("animation.gif")
    assert tab_animate.gif(job, last.images)[0] == file.read_bytes()
    assert "data:image/gif;base64," in tab_animate.shown(job, last.images)


def test_changes_of_the_page_s_own_command_line_are_in_every_other(first_run):
    workdir = str(first_run[0])
    given = (
        "--config.sampling.weights=raw",
        "--config.sampling.guidance_interval=0,.5",
    )
    command = main.parse(["ddpm-jax", "--mode=demo", f"--workdir={workdir}", *given])
    player = Player(command.config, trained_run.read(workdir), workdir)
    line, config = player.understood("sample", "--config.sampling.seed=3")
    assert config.sampling.weights == "raw"
    assert config.sampling.guidance_interval == (0.0, 0.5)
    again = main.parse(["ddpm-jax", *line])
    assert again.config.to_dict() == config.to_dict()


def test_no_slider_compiles(player):
    def programs():
        stored = vars(player.opened.trained.network)["_sampling_programs"]
        parts = [p for p in stored.values() if isinstance(p, tuple)]
        return len(parts), sum(part._cache_size() for pair in parts for part in pair)

    list(player.play(jobs.sample(player, guidance=2.0)))
    before = programs()
    for given in (
        {"guidance": 5.5},
        {"guidance": 2.0, "steps": 9},
        {"guidance": 2.0, "seed": 4, "label": "8", "number": 12},
    ):
        list(player.play(jobs.sample(player, **given)))
    assert programs() == before


def test_a_job_tells_how_far_it_is(player):
    told = []
    told.append(player.make(jobs.sample(player, number=16, steps=6), told.append))
    assert [now.done for now in told] == list(range(1, 13))
    assert {now.whole for now in told} == {12}
    assert [now.is_finished for now in told] == [False] * 11 + [True]
    assert [len(now.images) for now in told] == [8] * 6 + [16] * 6
    assert told[0].seconds_left is None
    assert told[-1].seconds_left == 0
    # What is made stays as it is while the rest is made.
    np.testing.assert_array_equal(told[5].images, told[-1].images[:8])


def test_an_animation_tells_how_far_it_is(player):
    job, told = tab_animate.job_of(player, kind="walk", frames=5, steps=3), []
    told.append(player.make(job, told.append))
    # Five frames, from as many chains of three entries each.
    assert [now.done for now in told] == list(range(1, 16))
    assert {now.whole for now in told} == {15}
    assert [now.is_finished for now in told] == [False] * 14 + [True]
    assert [now.images.shape for now in told[:-1]] == [(4, 8, 8, 1)] * 14
    assert told[-1].images.shape == (5, 4, 8, 8, 1)


def test_encoding_is_told_of_too(player, kept):
    job = tab_between.job_of(player, kept=(kept, kept), labels=("3", "4"), steps=20)
    told = []
    # A run that was trained for six steps encodes badly, which is told at the end.
    with pytest.raises(errors.Refusal, match="encoded and decoded, comes back with"):
        player.make(job, told.append)
    assert all(now.images is None and not now.is_finished for now in told)
    there_and_back = [*range(1, 20), *range(1, 20)]
    assert [now.done for now in told] == there_and_back
    assert {now.whole for now in told} == {19}


def jobs_that_take_long(player, kept):
    one = uploads.of_array(GREY[::-1])
    return {
        "sample": jobs.sample(player, steps=24),
        "denoise": tab_animate.job_of(player, kind="denoise", frames=20, steps=24),
        "walk": tab_animate.job_of(player, kind="walk", frames=20, steps=24),
        "encode": tab_between.job_of(
            player, kept=(kept, one), labels=("3", "4"), steps=24
        ),
    }


KINDS = ("sample", "denoise", "walk", "encode")


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_listens_to_ends_at_its_next_entry(player, kept, monkeypatch, kind):
    job = jobs_that_take_long(player, kept)[kind]
    made, told = [], worker.News()
    advance = sampler_lib.Sampler._under_way

    def counted(self, *given):
        for step in advance(self, *given):
            made.append(step)
            told.is_stopped = len(made) == 3
            yield step

    monkeypatch.setattr(sampler_lib.Sampler, "_under_way", counted)
    with pytest.raises(worker.Stopped):
        player.make(job, told.tell)
    assert len(made) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_job_ends_when_its_time_is_over(player, kept, monkeypatch, kind):
    job = jobs_that_take_long(player, kept)[kind]
    monkeypatch.setattr(player, "most_seconds", 0.0)
    told = []
    with pytest.raises(errors.Refusal, match="a request may take 0 s"):
        player.make(job, told.append)
    assert told == []


def test_a_closed_job_ends_and_the_next_one_is_made(player):
    began, ends = threading.Event(), []

    def work(tell):
        try:
            while True:
                began.set()
                tell("at work")
                time.sleep(0.01)
        finally:
            ends.append("stopped")

    working = worker.Worker()
    playing = working.follow(work)
    assert next(playing) in (None, "at work")
    assert began.wait(10)
    waiting = working.follow(lambda tell: "never begun")
    assert next(waiting) is None
    waiting.close()
    playing.close()
    assert list(working.follow(lambda tell: "made"))[-1] == "made"
    assert ends == ["stopped"]
    working.close()


def test_the_end_of_the_page_ends_what_is_under_way():
    working, began = worker.Worker(), threading.Event()

    def work(tell):
        while True:
            began.set()
            tell(None)
            time.sleep(0.01)

    playing = working.follow(work)
    assert next(playing) is None
    assert began.wait(10)
    working.close()
    with pytest.raises(worker.Stopped):
        list(playing)


def test_errors_of_the_work_reach_who_listens():
    def work(tell):
        raise KeyError("seven")

    working = worker.Worker()
    with pytest.raises(KeyError, match="seven"):
        list(working.follow(work))
    working.close()


def test_a_job_that_takes_too_long_is_refused(player, monkeypatch):
    monkeypatch.setattr(player, "most_seconds", 0.0)
    with pytest.raises(errors.Refusal, match="may take 0 s: ask for fewer steps"):
        list(player.play(jobs.sample(player)))


def test_refusals_are_told_in_the_page(player):
    def make(steps):
        return jobs.sample(player, steps=steps), lambda images: "shown"

    *_, (status, shown, command) = page.follow(player, make, 500)
    assert 'role="alert"' in status
    assert "steps is 500: give a whole number of 0 … 24" in status
    assert (shown, command) == ("", "")
    *_, (status, shown, command) = page.follow(player, make, 4)
    assert ("Done." in status, shown) == (True, "shown")
    assert command.startswith("python -m ddpm_jax.main --mode=sample ")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seed": 10**5000}, "the seed is a number of thousands of digits: give"),
        ({"steps": None}, "steps is None: give a whole number of 0 … 24"),
        ({"guidance": None}, "the guidance scale is None: give a number of 0 … 100"),
        ({"method": "ddim", "eta": None, "guidance": "1"}, "guidance scale is '1'"),
        ({"method": "ddim", "eta": float("nan")}, "η is nan: give a number of 0 … 1"),
        ({"seed": -1}, "the seed is -1: give a whole number of 0 …"),
        ({"seed": 1.5}, "the seed is 1.5"),
        ({"seed": None}, "the seed is None"),
        ({"seed": float("nan")}, "the seed is nan"),
        ({"number": 10**6}, "the number of images is 1000000"),
        ({"label": "; rm -rf"}, "there is no class '; rm -rf'"),
        ({"method": "euler"}, "unknown solver 'euler': choose one of ancestral"),
    ],
)
def test_settings_that_do_not_fit_are_refused(player, given, told):
    with pytest.raises(errors.Refusal, match=told.replace("(", r"\(")):
        jobs.sample(player, **given)


def test_a_cleared_strength_is_refused(player, kept):
    with pytest.raises(errors.Refusal, match=r"the strength is None: give a number"):
        tab_vary.job_of(player, kept, strength=None)


def test_errors_of_the_program_are_logged_and_a_sentence_in_the_page(player, caplog):
    def make():
        raise KeyError("/home/somebody")

    *_, (status, shown, command) = page.follow(player, make)
    assert 'role="alert"' in status
    assert "an error of the program" in status
    assert "somebody" not in status
    assert (shown, command) == ("", "")
    assert "KeyError" in caplog.text


def test_a_job_that_will_take_longer_is_refused_before():
    check_time(4.0, None, 10.0)
    check_time(4.0, 5.9, 10.0)
    with pytest.raises(errors.Refusal, match=r"about 11 s here, .* may take 10 s"):
        check_time(4.0, 7.0, 10.0)


def test_a_chain_has_no_more_frames_than_states(player):
    job = tab_animate.job_of(player, kind="denoise", frames=16, steps=4)
    assert "--frames=5" in job.arguments
    assert job.wanted == 5
    job = tab_animate.job_of(player, kind="walk", frames=16, steps=4)
    assert "--frames=16" in job.arguments


def test_a_respacing_of_the_page_is_in_every_command_line(first_run):
    workdir = str(first_run[0])
    given = "--config.sampling.respacing=6", "--config.sampling.eta=0.5"
    command = main.parse(["ddpm-jax", "--mode=demo", f"--workdir={workdir}", *given])
    player = Player(command.config, trained_run.read(workdir), workdir)
    job = jobs.sample(player, method="ddim")
    assert job.config.sampling.respacing == "6"
    assert job.config.sampling.steps is None
    assert len(job.recipe.whole_path) == 6
    # η is the run's, once, unless another one is chosen.
    assert job.config.sampling.eta == 0.5
    assert [a for a in job.arguments if "eta=" in a] == [given[1]]
    assert jobs.sample(player, method="ddim", eta=0).config.sampling.eta == 0
    assert jobs.sample(player, method="ancestral").config.sampling.eta == 0
    # Steps of a tab stand instead.
    job = tab_vary.job_of(player, uploads.of_array(GREY), strength=0.5, label="5")
    assert job.config.sampling.respacing == ""
    assert job.config.sampling.steps == 12


# ---- the page's own command line -----------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling.labels", "3"),
        ("sampling.per_class", "2"),
        ("sampling.guidance_w", "1.5"),
        ("editing.strength", "0.3"),
    ],
)
def test_what_the_tabs_decide_is_no_field_of_the_page(first_run, field, value):
    workdir = str(first_run[0])
    given = f"--config.{field}={value}"
    command = main.parse(["ddpm-jax", "--mode=demo", f"--workdir={workdir}", given])
    saved = trained_run.read(workdir)
    with pytest.raises(errors.Refusal, match=f"{given} with --mode=demo"):
        demo.leave_to_tabs(command.config, saved.config)


def test_command_lines_are_typed_anywhere(first_run, monkeypatch):
    folder = first_run[0].parent
    monkeypatch.chdir(folder)
    workdir = first_run[0].name
    command = main.parse(["ddpm-jax", "--mode=demo", f"--workdir={workdir}"])
    player = Player(command.config, trained_run.read(workdir), workdir)
    line, _ = player.understood("sample")
    assert f"--workdir={folder / workdir}" in line


def test_what_a_run_has_of_them_is_undone_in_every_command_line(first_run):
    workdir = str(first_run[0])
    command = main.parse(["ddpm-jax", "--mode=demo", f"--workdir={workdir}"])
    saved = trained_run.read(workdir)
    for config in (command.config, saved.config):
        config.sampling.labels = ("3",)
        config.sampling.per_class = 2
        config.sampling.guidance_w = 1.5
    demo.leave_to_tabs(command.config, saved.config)
    assert command.config.sampling.guidance_scale == 2.5
    line = Player(command.config, saved, workdir)._changed
    assert "--config.sampling.labels=" in line
    again = main.parse(["ddpm-jax", f"--workdir={workdir}", "--mode=sample", *line])
    sampling = again.config.sampling
    assert sampling.labels == ()
    assert (sampling.per_class, sampling.guidance_w) == (0, 0)


# ---- runs that read text -------------------------------------------------------------


@pytest.fixture
def reader():
    """What `jobs` asks of a run that reads text."""
    config = config_lib.base()
    config.model.text_layers = 1
    network = types.SimpleNamespace(condition_spec={})
    return types.SimpleNamespace(
        config=config,
        facts=types.SimpleNamespace(
            text=types.SimpleNamespace(captions=("a dog", "a cat"))
        ),
        opened=types.SimpleNamespace(trained=types.SimpleNamespace(network=network)),
    )


def test_the_box_of_the_prompt_is_asked_for_even_where_it_is_empty(reader):
    assert "--prompt=a red circle" in jobs.settings(reader, prompt=" a red\n circle")
    assert "--prompt=" in jobs.settings(reader, prompt="")
    assert not [a for a in jobs.settings(reader) if a.startswith("--prompt")]
    reader.facts.text.captions = ()
    assert "--prompt=" in jobs.settings(reader)


@pytest.mark.parametrize("prompt", ["x" * 501, ["x"], 7])
def test_prompts_that_the_box_does_not_hold_are_refused(reader, prompt):
    with pytest.raises(errors.Refusal, match="give words of at most 500 characters"):
        jobs.settings(reader, prompt=prompt)
    assert f"--prompt={'x' * 500}" in jobs.settings(reader, prompt="x" * 500)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (("a red circle",), ["image 0, 'a red circle'", "image 1, 'a red circle'"]),
        (("",), ["image 0, no text", "image 1, no text"]),
        ((), ["image 0, 'a dog'", "image 1, 'a cat'"]),
    ],
)
def test_words_name_the_prompts(reader, asked, named):
    reader.config.sampling.prompts = asked
    recipe = types.SimpleNamespace(condition=())
    job = types.SimpleNamespace(config=reader.config, wanted=2, recipe=recipe)
    assert tab_sample.words(reader, job) == named


def test_morphs_of_many_classes_are_not_offered(player, monkeypatch):
    assert "morph" in tab_animate.kinds(player)
    monkeypatch.setattr("ddpm_jax.editing.animation.MOST_CLASSES", 9)
    assert tab_animate.kinds(player) == ["denoise", "walk", "guidance"]


# ---- pictures that are sent ----------------------------------------------------------


@pytest.fixture(autouse=True)
def folder_of_gradio(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))


def test_other_files_are_neither_read_nor_deleted(player, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "seven.png"
    other.write_bytes(uploads.file_of(GREY))
    for path in (other, "http://example.com/seven.png", "../seven.png"):
        with pytest.raises(errors.Refusal, match="was not sent to this page"):
            uploads.read(str(path), player)
    assert other.exists()


def sent(tmp_path, data, name="seven.png"):
    file = tmp_path / "a1b2" / name
    file.parent.mkdir()
    file.write_bytes(data)
    return file


def test_a_picture_is_fitted_and_its_file_deleted(player, tmp_path):
    file = sent(tmp_path, uploads.file_of(np.full((24, 24, 1), 77, np.uint8)))
    kept = uploads.read(str(file), player)
    np.testing.assert_array_equal(kept.fitted, np.full((8, 8, 1), 77))
    assert kept.remarks[0].startswith("seven.png is 24x24: scaled and cut to 8x8")
    assert not file.parent.exists()


def test_two_windows_that_send_the_same_are_both_answered(player, tmp_path):
    file = sent(tmp_path, uploads.file_of(GREY))
    uploads.read(str(file), player)
    with pytest.raises(errors.Refusal, match=r"seven\.png was read .* send it again"):
        uploads.read(str(file), player)


def test_what_others_send_stays_and_what_gradio_leaves_goes(player, tmp_path):
    file = sent(tmp_path, uploads.file_of(GREY))
    other = file.with_name("other.png")
    other.write_bytes(b"1")
    names = "tmp_old", "tmp_new", "tmp_full"
    old, new, full = (tmp_path / name for name in names)
    old.touch()
    new.touch()
    full.write_bytes(b"1")
    for path in (old, full):
        os.utime(path, (1, 1))
    uploads.read(str(file), player)
    assert other.exists()
    assert not old.exists()
    assert new.exists()
    assert full.exists()


@pytest.mark.parametrize(("width", "height"), [(4_000_000, 1), (1, 4_000_000)])
def test_narrow_pictures_are_refused_before_they_are_scaled(tmp_path, width, height):
    file = tmp_path / "long.png"
    Image.new("1", (width, height)).save(file, "PNG")
    with pytest.raises(errors.Refusal, match="too long and narrow for images of 32x32"):
        uploads._check_size(file, (32, 32, 3))


def test_pictures_are_measured_as_they_will_be_scaled(tmp_path):
    file = tmp_path / "wide.png"
    Image.new("1", (150, 10)).save(file, "PNG")
    uploads._check_size(file, (1000, 1000, 3))  # to 15 million
    with pytest.raises(errors.Refusal, match=r"wide\.png is 150x10, too long"):
        uploads._check_size(file, (1100, 1100, 3))  # to 18.15 million


LARGE = io.BytesIO()
Image.new("1", (6000, 5000)).save(LARGE, "PNG")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (LARGE.getvalue(), "has 30.0 million pixels: send at most 16 million"),
        (uploads.file_of(GREY)[:60], "seven.png"),
        (b"<svg/>", "is no picture that can be read, or it is damaged"),
        (b"", "is no picture"),
    ],
)
def test_what_is_no_fitting_picture_is_refused_and_deleted(
    player, tmp_path, data, told
):
    file = sent(tmp_path, data)
    with pytest.raises(errors.Refusal, match=told) as refused:
        uploads.read(str(file), player)
    assert str(tmp_path) not in str(refused.value)
    assert not file.exists()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "nothing is brushed"),
        (address_of(np.zeros((8, 8))), "nothing is brushed"),
        (address_of(np.ones((8, 8))), "everything is brushed"),
        (address_of(np.eye(9)), "did not arrive"),
        ("/etc/passwd", "did not arrive"),
        ("data:image/png;base64,!", "did not arrive"),
        ("data:image/png;base64,AAAA", "did not arrive"),
        ("data:image/png;base64," + "A" * 10**6, "did not arrive"),
    ],
)
def test_what_is_no_mask_is_refused(kept, address, told):
    with pytest.raises(errors.Refusal, match=told):
        uploads.hole_of(address, kept)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ("4", "give four whole numbers"),
        ("0,0,9,2", "leaves the picture"),
        ("0,0,8," + "8" * 5000, "give four whole numbers"),
        ("0,0,8,8", "all pixels are to be made"),
        ("a,b,c,d", "give four whole numbers"),
    ],
)
def test_a_box_that_does_not_fit_is_refused(kept, box, told):
    with pytest.raises(errors.Refusal, match=told):
        uploads.box_of(box, kept)


# ---- what is shown -------------------------------------------------------------------


def test_pictures_are_in_the_page_and_names_are_words():
    shown = view.pictures(GREY[None], ["<b>&"], "image")
    assert "<b>" not in shown
    assert "&lt;b&gt;&amp;" in shown
    coded = shown.partition("data:image/png;base64,")[2].partition('"')[0]
    with Image.open(io.BytesIO(base64.b64decode(coded))) as image:
        np.testing.assert_array_equal(np.asarray(image), GREY[..., 0])


def test_examples_that_are_no_images_are_numbers():
    points = RANDOM.normal(size=(3, 2)).astype(np.float32)
    shown = view.pictures(points, ["", "", ""], "image")
    coded = shown.partition("base64,")[2].partition('"')[0]
    np.testing.assert_array_equal(np.load(io.BytesIO(base64.b64decode(coded))), points)


def test_how_it_works_shows_the_process(player):
    explainer = explain.Explainer(player)
    x_0 = uploads.of_array(GREY).picture.values
    noise = explainer.noise(1)[0]
    assert abs(noise.mean()) < 5 / 8
    assert not np.array_equal(noise, explainer.noise(2)[0])
    # DDPM's linear schedule of 1000 steps, 10⁻⁴ … 0.02, brought to 24 (Improved DDPM).
    betas = np.linspace(1e-4, 0.02, 24, dtype=np.float64) * 1000 / 24
    alpha_bar = np.cumprod(1 - betas)
    for t in (0, 11, 23):
        seen = explainer.at(x_0, t, seed=1, label=3)
        share, rest = np.sqrt(alpha_bar[t]), np.sqrt(1 - alpha_bar[t])
        assert seen.alpha_bar == pytest.approx(alpha_bar[t])
        np.testing.assert_allclose(seen.x_t, share * x_0 + rest * noise, atol=1e-5)
        # DDPM eq. 4, solved for x_0: both estimates say the same.
        both = share * seen.x_0 + rest * seen.noise
        np.testing.assert_allclose(both, seen.x_t, atol=1e-4)
    # The class matters, where clipping leaves something of the estimate.
    one, other = (explainer.at(x_0, 0, seed=1, label=k) for k in (3, 4))
    assert not np.array_equal(one.x_0, other.x_0)
    way = explainer.forward(x_0, [0, 11, 23], seed=1)
    np.testing.assert_allclose(way[2], seen.x_t, atol=1e-5)


def test_the_way_back_begins_at_the_x_t_that_is_shown(player, kept):
    seen = explain.Explainer(player).at(kept.picture.values, 11, seed=4, label=3)
    job = tab_how.way_back(player, kept, 11, "3", 4)
    sampler = player._sampler(job)
    begin, _ = sampler._parts()
    given = {**sampler._inputs, "kept": np.zeros(1, np.int32)}
    batch = sampler._batch(0, 4, 8)
    chain = begin(player.opened.weights.params, given, *batch)
    np.testing.assert_allclose(chain.x[0], seen.x_t, atol=1e-6)
    assert "--strength=0.5" in job.arguments
    # At t = 23, the last of 24, the chain would begin at noise alone.
    with pytest.raises(errors.Refusal, match=r"t is 23.* 22"):
        tab_how.way_back(player, kept, 23, "3", 4)


# ---- the server ----------------------------------------------------------------------


def test_a_port_in_use_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(errors.Refusal, match=f"--port={port}: Address already in"):
            server.listening("127.0.0.1", port)


def test_other_hosts_are_warned_of(capsys):
    server.listening("127.0.0.1", free_port()).close()
    assert capsys.readouterr().out == ""
    server.listening("0.0.0.0", free_port()).close()
    assert "lets everyone who reaches this machine" in capsys.readouterr().out
    with pytest.raises(errors.Refusal, match="is no address of this machine"):
        server.listening("no such host", 7860)
    with pytest.raises(errors.Refusal, match="is no address of this machine"):
        server.listening("a..b", 7860)
    # Of documentation alone (RFC 5737): no machine has it.
    with pytest.raises(errors.Refusal, match=r"192.0.2.1 is no address of this"):
        server.listening("192.0.2.1", 7860)


def test_a_port_that_needs_rights_is_told(monkeypatch):
    def bind(self, address):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", type("S", (socket.socket,), {"bind": bind}))
    with pytest.raises(errors.Refusal, match=r"--port=80: .*give a --port of 1024"):
        server.listening("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:7860/"),
        ("0.0.0.0", "http://127.0.0.1:7860/"),
        ("::1", "http://[::1]:7860/"),
        ("::", "http://[::1]:7860/"),
    ],
)
def test_the_address_that_is_told_can_be_opened(host, address):
    assert server.address_of(host, 7860) == address


WAITING = """
import asyncio, os, signal, socket, threading
from ddpm_jax.demo import server

waits, bound = threading.Event(), server.listening("127.0.0.1", 0)

async def answer(scope, receive, send):
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{name}.complete"})
        return
    waits.set()
    await asyncio.sleep(60)

def window():
    with socket.create_connection(bound.getsockname()) as one:
        one.sendall(b"GET / HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n")
        waits.wait()
        os.kill(os.getpid(), signal.SIGINT)
        one.recv(1)

threading.Thread(target=window, daemon=True).start()
server.serve(answer, bound, "ready")
"""


def test_what_waits_at_the_end_is_no_error():
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-c", WAITING]
    told = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=100
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == ["ready", "stopped"]
    assert told.stderr == ""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("port", ["0", "65536", "seven", "-1"])
def test_a_port_is_a_number(port):
    with pytest.raises(errors.Refusal, match=f"--port={port}: give a number of 1 …"):
        server.port_of(port)
    assert server.port_of("") == 7860


def test_without_gradio_the_line_that_installs_it_is_told(tell, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    told = tell("--mode=demo", f"--workdir={trained}")
    assert told.status == 1
    assert "pip install 'ddpm_jax[demo]'" in told.err


def test_no_run_is_refused(tell, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "check_installed", lambda: None)
    told = tell("--mode=demo")
    assert told.status == 1
    assert "--mode=demo needs a run" in told.err
    told = tell("--mode=demo", f"--workdir={tmp_path / 'none'}")
    assert told.status == 1
    assert "none" in told.err


def test_scratch_goes_at_the_end():
    with server.scratch() as folder:
        (folder / "sent.png").write_bytes(b"x")
    assert not pathlib.Path(folder).exists()
