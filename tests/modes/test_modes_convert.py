"""Weights in and out: certified, sampled, scored, fine-tuned, never overwritten."""

import json
import sys

import diffusers_folder
import numpy as np
import pytest
from small_runs import ROOT, TINY, content, state_of

GOLDEN = ROOT / "tests" / "golden" / "networks"
OF_ADM = (
    "--config.data.image_size=32",
    "--config.model.head_channels=16",
    "--config.model.qkv_order=legacy",
    "--config.diffusion.schedule=linear",
    "--config.diffusion.num_steps=100",
    "--config.diffusion.rescale_timesteps=false",
    "--config.diffusion.prediction=noise",
)


@pytest.fixture
def exported(trained, tell, tmp_path):
    """The weights of the trained run as a safetensors file."""
    path = tmp_path / "weights.safetensors"
    told = export(tell, trained, "safetensors", path)
    assert told.status == 0, told.err
    assert "equal bit for bit" in told.out
    return path


def export(tell, workdir, kind, output):
    return tell(
        "--mode=export",
        f"--workdir={workdir}",
        f"--format={kind}",
        f"--output={output}",
    )


def convert(tell, source, workdir, *given):
    return tell("--mode=convert", f"--source={source}", f"--workdir={workdir}", *given)


def params_of(workdir, start):
    return {
        path.partition(start)[2]: leaf
        for path, leaf in state_of(workdir).items()
        if path.startswith(start)
    }


def test_what_leaves_comes_back(trained, exported, tell, tmp_path):
    told = convert(tell, exported, tmp_path / "back")
    assert told.status == 0, told.err
    about = (trained / "card.md").read_text()
    assert "Not evaluated yet" in about
    assert "weights imported" not in about
    before = params_of(trained, ".ema['0.5']")
    after = params_of(tmp_path / "back", ".params")
    assert before.keys() == after.keys()
    for path, leaf in before.items():
        np.testing.assert_array_equal(after[path], leaf)
    commands = [
        tell("--mode=sample", f"--workdir={run}")
        for run in (trained, tmp_path / "back")
    ]
    assert [told.status for told in commands] == [0, 0]
    (one,) = trained.glob("samples/*/samples.npz")
    (other,) = tmp_path.glob("back/samples/*/samples.npz")
    np.testing.assert_array_equal(np.load(one)["arr_0"], np.load(other)["arr_0"])


def test_imported_weights_are_scored_on_any_data_that_fits(exported, tell, tmp_path):
    convert(tell, exported, tmp_path / "back")
    evaluate = (
        "--mode=evaluate",
        f"--workdir={tmp_path / 'back'}",
        "--config.evaluation.num_images=8",
        "--config.evaluation.steps=2",
    )
    told = tell(*evaluate, "--config.data.name=digits")
    assert told.status == 0, told.err
    (card,) = (tmp_path / "back" / "evaluation").glob("*.json")
    assert json.loads(card.read_text())["protocol"]["weights"] == "imported"
    about = (tmp_path / "back" / "card.md").read_text()
    assert "weights imported from weights.safetensors, SHA-256" in about
    assert "| bits_per_dim |" in about


def test_imported_weights_are_fine_tuned_with_fewer_classes(exported, tell, tmp_path):
    source = tmp_path / "back"
    convert(tell, exported, source)
    assert "nothing to resume" in tell(f"--workdir={source}").err
    run = tmp_path / "tuned"
    command = (
        *TINY,
        f"--workdir={run}",
        f"--config.train.init_from={source}",
        "--config.train.steps=1",
        "--config.train.label_dropout=0",
    )
    told = tell(*command)
    assert told.status == 0, told.err
    assert "fresh  1 arrays: label_embedding/embedding" in told.out


def test_arrays_that_would_mean_something_else_are_refused(exported, tell, tmp_path):
    convert(tell, exported, tmp_path / "back")
    told = tell(
        *TINY,
        f"--workdir={tmp_path / 'tuned'}",
        f"--config.train.init_from={tmp_path / 'back'}",
        "--config.model.sinusoid=sin_cos",
    )
    assert "model.sinusoid is 'cos_sin' there and 'sin_cos' here" in told.err
    assert not (tmp_path / "tuned").exists()


def test_nothing_is_overwritten(trained, exported, tell, tmp_path):
    before = content(trained)
    assert "holds a run already" in convert(tell, exported, trained).err
    assert "is there already" in export(tell, trained, "safetensors", exported).err
    assert content(trained) == before


def test_what_a_format_cannot_hold_is_refused_by_its_field(trained, tell, tmp_path):
    told = export(tell, trained, "openai", tmp_path / "weights.pt")
    assert told.status == 1
    assert "model." in told.err
    assert not (tmp_path / "weights.pt").exists()


# ---- the networks of the original codes, through the command line --------------------


def weights(name):
    with np.load(GOLDEN / f"{name}_weights.npz") as saved:
        return dict(saved)


def diffusers_model(folder):
    return diffusers_folder.save(folder, weights("diffusers_ddpm_cifar_like"))


def openai_file(name, path):
    torch = pytest.importorskip("torch")
    torch.save({k: torch.tensor(v) for k, v in weights(name).items()}, path)
    return path


def test_an_openai_network_is_certified(tell, tmp_path):
    source = openai_file("gd_adm", tmp_path / "ema_0.9999_1.pt")
    told = convert(tell, source, tmp_path / "run", *OF_ADM)
    assert told.status == 0, told.err
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    certificate = saved["imported"]["certificate"]
    assert certificate["within_tolerance"]
    assert certificate["max_abs_reference"] > 0.1
    assert saved["data"]["num_classes"] == 10
    told = tell(
        "--mode=sample",
        f"--workdir={tmp_path / 'run'}",
        "--config.sampling.steps=2",
        "--config.sampling.num_samples=2",
        "--config.sampling.batch_size=8",
    )
    assert told.status == 0, told.err


def test_the_average_of_a_training_checkpoint_is_certified(tell, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {k: torch.tensor(v) for k, v in weights("gd_adm").items()}
    raw = {f"module.{name}": tensor + 1 for name, tensor in tensors.items()}
    path = tmp_path / "last.pt"
    torch.save({"model": raw, "ema": tensors, "step": 7}, path)
    told = convert(tell, path, tmp_path / "run", *OF_ADM)
    assert told.status == 0, told.err
    assert "took the average (EMA) 'ema'; also there: 'model.module'" in told.out
    assert "parity certificate: our network agrees" in told.out
    told = convert(tell, f"{path}#teacher", tmp_path / "other", *OF_ADM)
    assert "no network 'teacher'" in told.err
    assert not (tmp_path / "other").exists()


def test_a_network_of_diffusers_is_certified(tell, tmp_path):
    pytest.importorskip("torch")
    source = diffusers_model(tmp_path / "ddpm")
    told = convert(tell, source, tmp_path / "run")
    assert told.status == 0, told.err
    assert "parity certificate: our network agrees" in told.out


def test_without_torch_it_says_that_nothing_was_certified(tell, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    told = convert(tell, diffusers_model(tmp_path / "ddpm"), tmp_path / "run")
    assert told.status == 0, told.err
    assert "no parity certificate" in told.out
    assert "ddpm-jax[convert]" in told.out


def test_numbers_that_are_not_finite_are_refused(tell, tmp_path):
    tensors = weights("diffusers_ddpm_cifar_like")
    tensors["conv_out.weight"][1, 2, 0, 0] = np.nan
    source = diffusers_folder.save(tmp_path / "ddpm", tensors)
    told = convert(tell, source, tmp_path / "run")
    assert "conv_out.weight holds numbers that are not finite" in told.err
    assert not (tmp_path / "run").exists()


def test_what_nothing_tells_is_asked_for_at_once(tell, tmp_path):
    source = openai_file("gd_adm", tmp_path / "model.pt")
    told = convert(tell, source, tmp_path / "run", *OF_ADM[2:])
    assert "--config.data.image_size" in told.err
    assert "--config.model.num_heads" in told.err
    assert "--config.diffusion.schedule" not in told.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scheduler", "given", "said"),
    [
        ({"rescale_betas_zero_snr": True}, (), "ᾱ = 0"),
        ({"num_train_timesteps": 0}, (), "diffusion steps 0"),
        ({"beta_end": 1.5}, (), "beta"),
        ({"trained_betas": [0.1, 0.2]}, (), "betas"),
        ({"thresholding": True, "sample_max_value": 0.5}, (), "dynamic_threshold"),
        ({}, ("--config.sampling.dynamic_threshold=0.5",), "dynamic_threshold"),
        ({}, ("--config.sampling.eta=2", "--config.sampling.method=ddim"), "eta"),
    ],
)
def test_runs_that_could_not_be_sampled_are_not_written(
    scheduler, given, said, tell, tmp_path
):
    source = diffusers_folder.save(
        tmp_path / "ddpm",
        weights("diffusers_ddpm_cifar_like"),
        scheduler=diffusers_folder.SCHEDULER | scheduler,
    )
    told = convert(tell, source, tmp_path / "run", *given)
    assert told.status == 1
    assert said in told.err
    assert not (tmp_path / "run").exists()
