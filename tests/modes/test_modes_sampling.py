"""Sampling from end to end: the archive, going on, and what decides an image."""

import shutil

import numpy as np
import pytest
from small_runs import T, content, grey_levels

from ddpm_jax import main
from ddpm_jax.sampling import archive as archive_lib


def archive(workdir):
    """Return the only samples.npz of a run as {name: array}, and its folder."""
    (path,) = (workdir / "samples").glob("*/samples.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays), path.parent


def sample(tell, workdir, **fields):
    given = [f"--config.sampling.{name}={value}" for name, value in fields.items()]
    return tell("--mode=sample", f"--workdir={workdir}", *given)


@pytest.fixture(scope="module")
def sampled(first_run, quickly, tmp_path_factory):
    """The default samples of the run: sixteen images, four steps."""
    workdir = tmp_path_factory.mktemp("sampled") / "run"
    shutil.copytree(first_run[0], workdir)
    assert main.main(["ddpm-jax", "--mode=sample", f"--workdir={workdir}"]) == 0
    return workdir


def test_the_archive_holds_images_and_labels(sampled):
    arrays, folder = archive(sampled)
    assert sorted(arrays) == ["arr_0", "arr_1"]
    assert arrays["arr_0"].dtype == np.uint8
    assert arrays["arr_0"].shape == (16, 8, 8, 1)
    assert len(np.unique(arrays["arr_0"])) > 16
    # No labels asked for: the classes in turn.
    assert arrays["arr_1"].tolist() == [i % 10 for i in range(16)]
    assert grey_levels(folder / "grid.png") > 16
    assert not list((folder / "parts").glob("*.npy"))


def test_the_folder_is_named_after_what_decides_the_images(sampled):
    _, folder = archive(sampled)
    for word in ("ancestral", "4", "ema", "guidance1", "seed0", "step6"):
        assert word in folder.name.split("-")


def test_sampling_says_which_weights_it_took_and_why(sampled, tell):
    told = sample(tell, sampled)
    assert told.lines[0].startswith("step 6, EMA weights (EMA 0.5 holds ")


def test_the_same_command_again_says_that_it_is_done(sampled, tell):
    _, folder = archive(sampled)
    before = content(folder)
    told = sample(tell, sampled)
    assert told.status == 0
    assert "16 samples exist already" in told.out
    assert str(folder) in told.out
    assert content(folder) == before


def test_more_samples_keep_those_that_are_there(sampled, trained, tell):
    first, _ = archive(sampled)
    sample(tell, trained)
    told = sample(tell, trained, num_samples=20)
    assert told.status == 0
    assert "after 16 of 20" in told.out
    more, _ = archive(trained)
    assert more["arr_0"].shape == (20, 8, 8, 1)
    np.testing.assert_array_equal(more["arr_0"][:16], first["arr_0"])
    assert more["arr_1"].tolist() == [i % 10 for i in range(20)]


def test_an_interruption_changes_no_image(sampled, trained, tell, interrupted):
    uninterrupted, _ = archive(sampled)
    told = interrupted(
        archive_lib.SampleStore,
        "add",
        lambda: sample(tell, trained, batch_size=8),
    )
    assert told.status == 0
    assert "stopped by SIGINT after 8 of 16 images" in told.out
    assert not list(trained.rglob("samples.npz"))
    again = sample(tell, trained, batch_size=8)
    assert again.status == 0
    assert "after 8 of 16" in again.out
    arrays, folder = archive(trained)
    # Eight at a time instead of sixteen: float32 rounding may move a pixel by one.
    difference = arrays["arr_0"].astype(int) - uninterrupted["arr_0"].astype(int)
    assert np.abs(difference).max() <= 1
    assert arrays["arr_1"].tolist() == uninterrupted["arr_1"].tolist()
    assert not list((folder / "parts").glob("*.npy"))


def test_ddim_without_noise_differs_from_ancestral_in_the_steps_alone(
    sampled, trained, tell
):
    assert sample(tell, trained, method="ddim", steps=4).status == 0
    arrays, folder = archive(trained)
    assert folder.name.startswith("ddim-4-")
    ancestral, _ = archive(sampled)
    assert (arrays["arr_0"] != ancestral["arr_0"]).any()


def test_one_step_is_the_same_for_every_sampler(trained, tell):
    # From T−1 straight to the end: the mean of both is x̂_0, and no noise is added.
    sample(tell, trained, steps=1)
    one, folder = archive(trained)
    (folder / "samples.npz").unlink()
    sample(tell, trained, steps=1, method="ddim")
    other, _ = archive(trained)
    difference = one["arr_0"].astype(int) - other["arr_0"].astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("method", "evaluations"), [("heun", 7), ("dpmpp_2m", 4), ("dpmpp_2s", 4)]
)
def test_solvers_of_second_order_say_how_often_they_ask(
    method, evaluations, trained, tell
):
    told = sample(tell, trained, method=method, steps=4)
    assert told.status == 0
    said = f"{method}, 4 steps, {evaluations} evaluations of the network"
    assert said in told.out
    arrays, folder = archive(trained)
    assert folder.name.startswith(f"{method}-4-")
    assert arrays["arr_0"].std() > 1


def test_too_few_steps_for_a_solver_are_refused(trained, tell):
    told = sample(tell, trained, method="heun", steps=1)
    assert told.status == 1
    assert "at least 2 steps" in told.err


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_none_is_refused(temperature, trained, tell):
    told = sample(tell, trained, temperature=temperature)
    assert told.status == 1
    assert "a number above 0" in told.err


@pytest.mark.parametrize(
    ("respacing", "count"), [("ddim6", 6), ("2,1", 3)], ids=["ddim", "sections"]
)
def test_respacing_strings_work(respacing, count, trained, tell):
    told = sample(tell, trained, respacing=respacing)
    assert told.status == 0
    assert f"{count} steps" in told.out
    assert archive(trained)[0]["arr_0"].shape == (16, 8, 8, 1)


def test_more_steps_than_the_process_has_are_refused(trained, tell):
    before = content(trained)
    told = sample(tell, trained, steps=T + 1)
    assert told.status == 1
    assert f"{T + 1}" in told.err
    assert content(trained) == before


def test_guidance_two_extrapolates_and_zero_ignores_the_labels(sampled, trained, tell):
    plain, _ = archive(sampled)
    assert sample(tell, trained, guidance_scale=2).status == 0
    guided, folder = archive(trained)
    assert "guidance2" in folder.name
    assert (guided["arr_0"] != plain["arr_0"]).any()
    (folder / "samples.npz").unlink()

    sample(tell, trained, guidance_scale=0)
    free, folder = archive(trained)
    (folder / "samples.npz").unlink()
    told = sample(tell, trained, guidance_scale=0, labels=3)
    assert "classes:" not in told.out
    threes, _ = archive(trained)
    np.testing.assert_array_equal(free["arr_0"], threes["arr_0"])
    assert threes["arr_1"].tolist() == [3] * 16


def test_labels_are_cycled(trained, tell):
    told = sample(tell, trained, labels="3,7", num_samples=8)
    assert "classes: 3, 7 in turn\n" in told.out
    assert archive(trained)[0]["arr_1"].tolist() == [3, 7] * 4


def test_weights_and_seed_as_asked(sampled, trained, tell):
    plain, _ = archive(sampled)
    told = sample(tell, trained, weights="raw")
    assert "raw weights, as asked" in told.out
    raw, folder = archive(trained)
    assert "raw" in folder.name.split("-")
    assert (raw["arr_0"] != plain["arr_0"]).any()
    (folder / "samples.npz").unlink()
    sample(tell, trained, seed=1)
    assert (archive(trained)[0]["arr_0"] != plain["arr_0"]).any()


def test_other_images_never_mix_in_one_folder(sampled, tell):
    _, folder = archive(sampled)
    before = content(folder)
    request = (folder / "request.json").read_text()
    (folder / "request.json").write_text(request.replace("ancestral", "annealed"))
    told = sample(tell, sampled, num_samples=20)
    (folder / "request.json").write_text(request)
    assert told.status == 1
    assert "annealed" in told.err
    assert "ancestral" in told.err
    assert content(folder) == before


def test_a_step_is_sampled_from_while_its_checkpoint_is_kept(trained, tell):
    options = ("--mode=sample", f"--workdir={trained}")
    told = tell(*options, "--config.sampling.checkpoint=3")
    assert told.status == 0, told.err
    assert "step 3," in told.out
    (tag,) = [p.name for p in (trained / "samples").iterdir() if p.is_dir()]
    assert tag.endswith("-step3")
    told = tell(*options, "--config.sampling.checkpoint=4")
    assert told.status == 1
    for part in ("sampling.checkpoint=4", "3, 6", "keep_every"):
        assert part in told.err
    told = tell(*options, "--config.sampling.checkpoint=newest")
    assert told.status == 1
    assert "'newest'" in told.err
