"""Runs of the 2015 paper through the modes, on tiny chains."""

import functools
import json
import pathlib
import shutil

import numpy as np
import pytest
import small_runs
from PIL import Image

import ddpm_jax
from ddpm_jax import main
from ddpm_jax.builders import paper_2015, trained_run
from ddpm_jax.data import dead_leaves

TINY = (
    "--config.train.batch_size=16",
    "--config.train.decay=none",
    "--config.train.ema_decay=0.5",
    "--config.train.log_every=2",
    "--config.train.checkpoint_every=3",
    "--config.train.validate_every=3",
    "--config.train.sample_every=3",
    "--config.evaluation.num_images=12",
    "--config.evaluation.batch_size=8",
    "--config.evaluation.trajectories=3",
    "--config.sampling.num_samples=7",
    "--config.sampling.batch_size=7",
)
OWN = {
    "heartbeat": ("--config.diffusion.num_steps=9", "--config.model.readouts=4"),
    "swissroll": ("--config.model.channels=6",),
    "deadleaves": (
        "--config.data.image_size=8",
        "--config.diffusion.num_steps=9",
        "--config.model.channels=4",
        "--config.model.readouts=3",
    ),
}
SHAPES = {"heartbeat": (20, 1), "swissroll": (2,), "deadleaves": (8, 8, 1)}


def training(name, workdir, steps=6):
    config = f"--config={small_runs.ROOT / 'configs' / f'{name}_2015.py'}"
    own = [f"--workdir={workdir}", f"--config.train.steps={steps}"]
    return [config, *TINY, *OWN[name], *own]


@pytest.fixture(scope="module", params=OWN)
def run(request, cache, tmp_path_factory):
    """(name, directory) of a finished run; only to be read."""
    workdir = tmp_path_factory.mktemp("chains") / request.param
    with small_runs.quick_compilation(cache):
        assert main.main(["ddpm-jax", *training(request.param, workdir)]) == 0
    return request.param, workdir


def test_a_run_is_trained_with_a_picture_of_its_samples(run):
    _, workdir = run
    records = small_runs.metrics(workdir)
    bounds = [r["validation_bound"] for r in records if "validation_bound" in r]
    losses = [r["validation_loss"] for r in records if "validation_loss" in r]
    assert len(bounds) == 2
    assert min(losses) >= 0
    # They differ by H(X_1), which no step changes.
    np.testing.assert_allclose(np.add(bounds, losses), bounds[0] + losses[0], rtol=1e-3)
    assert small_runs.grey_levels(workdir / "samples" / "step_6.png") > 1


def test_a_killed_run_goes_on_to_the_same_bits(run, tmp_path, tell):
    _, workdir = run
    killed = pathlib.Path(shutil.copytree(workdir, tmp_path / "killed"))
    # As if the process had died after the checkpoint of step 3.
    shutil.rmtree(killed / "checkpoints" / "6")
    lines = (killed / "metrics.jsonl").read_text().splitlines(keepends=True)
    (killed / "metrics.jsonl").write_text("".join(lines[:-1]))
    said = tell(f"--workdir={killed}")
    assert said.status == 0, said.err
    assert "resumed at step 3" in said.out
    small_runs.assert_same_bits(
        small_runs.state_of(workdir), small_runs.state_of(killed)
    )


def test_samples_are_kept_and_do_not_depend_on_their_batch(run, tell):
    name, workdir = run
    assert tell(f"--workdir={workdir}", "--mode=sample").status == 0
    (archive,) = workdir.glob("samples/*/samples.npz")
    with np.load(archive) as arrays:
        kept = arrays["arr_0"]
    assert kept.shape == (7, *SHAPES[name])
    assert (archive.parent / "grid.png").exists()
    trained = trained_run.open_run(workdir)
    config, facts = trained.config, trained.facts
    made_by = paper_2015.make_sampler(
        paper_2015.recipe(config, facts), config, facts, trained.network, trained.mesh
    )
    weights = trained.weights("auto", field="").params
    alone = made_by.make(weights, start=3, stop=4, batch_size=8).images
    if kept.dtype == np.uint8:
        alone = np.clip(np.round((alone + 1) * 127.5), 0, 255)
    tolerance = 1 if kept.dtype == np.uint8 else 1e-4
    np.testing.assert_allclose(alone[0], kept[3].astype(float), atol=tolerance)
    if name == "heartbeat":
        np.testing.assert_array_equal(ddpm_jax.load(workdir).sample(7), kept)


def test_the_card_adds_up_and_lies_in_the_report(run, tell):
    name, workdir = run
    said = tell(f"--workdir={workdir}", "--mode=evaluate")
    assert said.status == 0
    (path,) = workdir.glob("evaluation/bound_*.json")
    card = json.loads(path.read_text())
    by_t = card["by_t"]
    np.testing.assert_allclose(card["value"], card["ends"] - sum(by_t["kl"]))
    np.testing.assert_allclose(card["gain"], card["value"] - card["null"])
    assert all(0 < beta <= 1 for beta in by_t["beta"])
    assert np.all(np.array(by_t["entropy_lower"]) <= by_t["entropy_upper"])
    assert 1 <= card["effective_trajectories"] <= 3.001
    if "ceiling" in card:
        assert card["value"] <= card["ceiling"]
    figures = {
        "heartbeat": {"chains", "terms"},
        "swissroll": {"chains", "drift", "terms"},
        "deadleaves": {"samples", "terms"},
    }
    found = {p.stem.rpartition("_")[2] for p in workdir.glob("evaluation/*.png")}
    assert found == figures[name]
    page = (workdir / "report.html").read_text()
    assert "Bound of the chain" in page
    assert "scored already" in tell(f"--workdir={workdir}", "--mode=evaluate").out


def test_a_folder_of_textures_is_trained_on(tmp_path, tell):
    textures = dead_leaves.pictures(seed=5, count=60, side=8)
    (tmp_path / "textures").mkdir()
    for number, texture in enumerate(textures):
        Image.fromarray(texture).save(tmp_path / "textures" / f"{number}.png")
    said = tell(
        *training("deadleaves", tmp_path / "run", steps=3),
        "--config.data.name=folder",
        f"--config.data.path={tmp_path / 'textures'}",
        "--config.train.sample_every=0",
    )
    assert said.status == 0, said.err
    (record,) = [
        r for r in small_runs.metrics(tmp_path / "run") if "validation_bound" in r
    ]
    # Of data of unit variance: about that of the prior, before anything is learned.
    assert -8 < record["validation_bound"] < 0


def test_what_is_known_of_a_picture_is_exact(run, tmp_path, tell):
    name, workdir = run
    if name != "deadleaves":
        pytest.skip("of images alone")
    grey = np.random.default_rng(5).integers(0, 256, (8, 8), np.uint8)
    hole = np.zeros((8, 8), bool)
    hole[2:6, 3:] = True
    Image.fromarray(grey).save(tmp_path / "leaves.png")
    Image.fromarray(np.where(hole, 255, 0).astype(np.uint8)).save(tmp_path / "hole.png")
    mask = f"--mask={tmp_path / 'hole.png'}"
    images = [tmp_path / "leaves.png"]
    inpaint = functools.partial(
        small_runs.edited, tell, "inpaint", workdir, mask, images=images
    )
    told, folder, made = inpaint("--method=delta")
    assert told.status == 0, told.err
    assert "known-pixel error 0" in told.out
    assert made.shape == (4, 8, 8, 1)
    np.testing.assert_array_equal(made[:, ~hole, 0], np.tile(grey[~hole], (4, 1)))
    assert all(np.any(made[0] != other) for other in made[1:])
    assert json.loads((folder / "request.json").read_text())["method"] == "delta"
    assert Image.open(folder / "preview.png").size[0] > 6 * 64
    # The usual method is the only one; Python has the same results.
    again, other, _ = inpaint()
    assert (again.status, other) == (0, None)
    assert "exist already" in again.out
    found = ddpm_jax.load(workdir).inpaint(grey[..., None], hole)
    np.testing.assert_array_equal(found[0], made)
    for arguments, words in (
        ("--method=repaint", ["'repaint'", "--method=delta"]),
        ("--jump=2", ["editing.jump=2 has no effect"]),
        ("--labels=3", ["sampling.labels"]),
    ):
        refused, _, _ = inpaint(arguments)
        assert refused.status == 1
        assert [word for word in words if word not in refused.err] == []
    wrong = tell(
        "--mode=inpaint",
        f"--workdir={workdir}",
        f"--image={images[0]}",
        f"--mask={workdir / 'samples' / 'step_6.png'}",
    )
    assert wrong.status == 1
    assert "a mask of" in wrong.err


def test_a_drift_moves(run, tell):
    name, workdir = run
    if name != "swissroll":
        pytest.skip("of points in the plane alone")
    told, folder, made = small_runs.edited(
        tell, "animate", workdir, "--frames=3", "--fps=2"
    )
    assert told.status == 0, told.err
    assert made.shape[:2] == (3, 1)
    assert made.shape[-1] == 3
    with Image.open(folder / "animation.gif") as film:
        assert film.n_frames == 3
    assert (folder / "strip.png").exists()
    frames = ddpm_jax.load(workdir).animate(frames=3)
    np.testing.assert_array_equal(frames, made)
    for argument, words in (
        ("--frames=99", "of 80 states"),
        ("--kind=walk", "its drift is shown"),
        ("--variants=2", "editing.variants=2 has no effect"),
    ):
        refused = tell("--mode=animate", f"--workdir={workdir}", argument)
        assert refused.status == 1
        assert words in refused.err


@pytest.mark.parametrize("mode", ["vary", "interpolate", "animate", "diagnose"])
def test_modes_of_images_are_refused(run, mode, tell):
    name, workdir = run
    if (name, mode) == ("swissroll", "animate"):
        pytest.skip("its drift is shown")
    more = [f"--image={workdir}/x.png"] if mode in ("vary", "interpolate") else []
    said = tell(f"--workdir={workdir}", f"--mode={mode}", *more)
    assert said.status == 1
    assert "it is not possible; train it, sample it with --mode=sample" in said.err


def test_data_that_are_no_images_have_no_holes(run, tell):
    name, workdir = run
    if name == "deadleaves":
        pytest.skip("they are images")
    said = tell(f"--workdir={workdir}", "--mode=inpaint", f"--image={workdir}/x.png")
    assert said.status == 1
    assert "no image [height, width, channels]" in said.err


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("heartbeat", "data.name=swissroll", "takes binary data, and"),
        ("heartbeat", "diffusion.prior_mean=1.0", "a prior mean of 1.0: choose"),
        (
            "heartbeat",
            "diffusion.data_std=2.0",
            "data_std=2.0 has no meaning",
        ),
        ("swissroll", "diffusion.beta_start=0.0", "diffusion.beta_start=0.0 is β_1"),
        ("swissroll", "diffusion.bits_of=x_prev", "diffusion.bits_of='x_prev' has no"),
        ("swissroll", "model.network=multiscale", "takes images [height, width"),
        ("deadleaves", "sampling.eta=0.5", "sampling.eta=0.5 has no meaning for"),
        (
            "deadleaves",
            "evaluation.metric=fid",
            "metric=fid with model.kind",
        ),
    ],
)
def test_what_a_chain_cannot_do_is_refused(name, more, told, tmp_path, tell):
    mode = ["--mode=evaluate"] if "evaluation" in more else []
    said = tell(*training(name, tmp_path / "run"), f"--config.{more}", *mode)
    assert said.status == 1
    assert told in said.err + said.out
    assert not (tmp_path / "run").exists()
