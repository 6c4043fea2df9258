"""Which network of a checkpoint is taken, and what is said of the others."""

import numpy as np
import pytest
import safetensors.numpy

from ddpm_jax.convert import open as open_lib
from ddpm_jax.core import errors

NAMES = ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.bias")


def network(value, prefix="", **extra):
    """Return the state dict of a network whose every number is `value`."""
    return {prefix + name: np.full((2, 3), float(value)) for name in NAMES} | extra


def optimizer():
    return {"state": {0: {"exp_avg": np.ones((2, 3))}}, "param_groups": [{"lr": 1e-3}]}


def saved(path, content):
    torch = pytest.importorskip("torch")

    def converted(value):
        if isinstance(value, np.ndarray):
            return torch.tensor(value, dtype=torch.float32)
        if isinstance(value, dict):
            return {key: converted(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [converted(inner) for inner in value]
        return value

    torch.save(converted(content), path)
    return path


def check(path, value, *said):
    source = open_lib.open_source(path)
    assert tuple(source.shapes) == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(source.tensors[name], np.full((2, 3), value))
    for part in said:
        assert any(part in note for note in source.notes), source.notes
    return source


def refused(path, *parts):
    with pytest.raises(errors.Refusal) as caught:
        open_lib.open_source(path)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


COUNTERS = {"step": np.array(3.0), "decay": np.array(0.9)}
TABLES = {"betas": np.ones(5), "sqrt_recip_alphas_cumprod": np.ones(5)}
LISTS = {"shadow_params": list(network(1).values()), "decay": 0.9, "num_updates": 7}


@pytest.mark.parametrize(
    ("content", "value", "said"),
    [
        ({"state_dict": network(0), "epoch": 3}, 0, ["'state_dict.'", "epoch"]),
        ({"net": network(0), "opt": optimizer()}, 0, ["'net.'", "skipped", "opt"]),
        ({"unet": network(0)}, 0, ["'unet.'"]),
        ({"model": network(0), "ema": network(1), "step": 3}, 1, ["'ema'", "step"]),
        ({"model": network(0), "model_ema": network(1)}, 1, ["(EMA) 'model_ema'"]),
        ({"ema_model": network(1), "net": network(0)}, 1, ["also there: 'net'"]),
        (network(0) | {"ema": network(1)}, 1, ["(EMA) 'ema'"]),
        ({"non_ema": network(0), "ema": network(1)}, 1, ["(EMA) 'ema'"]),
        (
            {"state_dict": network(0, "model.") | network(1, "ema_model.")},
            1,
            ["(EMA) 'state_dict.ema_model'"],
        ),
        (
            network(0, "online_model.") | network(1, "ema_model.") | COUNTERS,
            1,
            ["step"],
        ),
        (network(0, "model.") | TABLES, 0, ["betas, sqrt_recip_alphas_cumprod"]),
        (network(0, "model.", **{"model.betas": np.ones(5)}), 0, ["model.betas"]),
        (network(0) | TABLES | COUNTERS, 0, ["betas", "decay"]),
        ({"model": network(0), "ema": LISTS}, 1, ["(EMA) 'ema'", "num_updates"]),
        (
            {"model": network(0), "ema": {"shadow_params": [np.ones(3)]}},
            0,
            ["the average 'ema' has no names"],
        ),
        ({"ema": {"module": network(1)}, "model": network(0)}, 1, ["'ema.module'"]),
    ],
)
def test_the_network_is_found_and_the_average_wins(content, value, said, tmp_path):
    check(saved(tmp_path / "last.pt", content), value, *said)


def test_prefixes_in_safetensors_are_networks_too(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = network(0, "unet.") | network(1, "ema_unet.") | COUNTERS
    safetensors.numpy.save_file(tensors, path)
    source = open_lib.open_source(path)
    assert source.tensors[NAMES[0]][0, 0] == 1
    assert open_lib.open_source(f"{path}#unet").tensors[NAMES[0]][0, 0] == 0


@pytest.mark.parametrize(
    ("content", "entry", "value"),
    [
        ({"model": network(0), "ema": network(1)}, "model", 0),
        ({"model": network(0), "ema": network(1)}, "ema", 1),
        ({"model": network(0), "ema": LISTS}, "model", 0),
        ({"teacher": network(0), "student": network(1)}, "student", 1),
        ([network(0), optimizer(), 3, network(1)], "3", 1),
        ({"state_dict": network(0, "a.") | network(1, "b.")}, "b", 1),
    ],
)
def test_an_entry_can_be_named(content, entry, value, tmp_path):
    check(f"{saved(tmp_path / 'last.pt', content)}#{entry}", value)


def test_what_nothing_decides_is_asked_for(tmp_path):
    both = {"teacher": network(0), "student": network(1)}
    path = saved(tmp_path / "last.pt", both)
    refused(path, "2 networks ('student', 'teacher')", "no average", f"{path}#student")
    refused(f"{path}#ema", "no network 'ema'", "student, teacher")
    averages = {"ema_0.99": network(0), "ema_0.9999": network(1), "model": network(2)}
    path = saved(tmp_path / "several.pt", averages)
    refused(path, "several averages", "#ema_0.99")
    check(f"{path}#ema_0.9999", 1)
    refused(saved(tmp_path / "list.pt", [network(0), network(1)]), "list.pt#0")


def test_a_file_may_have_the_mark_in_its_name(tmp_path):
    check(saved(tmp_path / "last#2.pt", {"ema": network(1)}), 1)
    refused(f"{tmp_path / 'none.pt'}#ema", "does not exist")


def test_files_that_hold_themselves_end(tmp_path):
    loop = []
    loop.append({"a": loop})
    torch = pytest.importorskip("torch")
    torch.save(loop, tmp_path / "loop.pt")
    refused(tmp_path / "loop.pt", "holds no tensors")


def test_latent_models_are_told_as_such_within_wrappers(tmp_path):
    content = {"state_dict": network(0, "model.diffusion_model.")}
    refused(saved(tmp_path / "last.ckpt", content), "Stable Diffusion")
