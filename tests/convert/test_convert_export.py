"""Exports: what diffusers and PyTorch make of them, and that nothing gets lost."""

import json
import pathlib
import sys

import from_fields
import golden_networks
import numpy as np
import pytest
import safetensors.numpy
import small_networks

from ddpm_jax.convert import mapping
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.export import diffusers_scheduler, writing
from ddpm_jax.convert.formats import EXPORTS, FORMATS
from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, respacing, reverse, schedules
from ddpm_jax.models import functional

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "networks"
NAMES = {"safetensors": "net.safetensors", "diffusers": "net", "openai": "net.pt"}
SHAPE = (8, 8, 3)

DDPM = {
    "model.sinusoid": "sin_cos",
    "model.sinusoid_shift": 1,
    "model.norm_epsilon": 1e-6,
    "model.downsample_padding": "end",
    "model.qkv_order": "new",
    "model.attention_scale": "product",
    "model.num_heads": 1,
    "model.scale_shift": False,
    "diffusion.schedule": "linear_fixed",
}
ADM = {
    "model.head_channels": 8,
    "model.attention_resolutions": (8, 4),
    "model.resblock_updown": True,
    "model.class_conditional": True,
    "facts.num_classes": 5,
    "diffusion.variance": "learned_range",
}
OPENAI = {"model.norm_groups": 32, "model.channels": 32, **ADM}


def write(format_name, folder, fields, params=None):
    """Export random parameters of the network of `fields`: (output, params, result)."""
    if params is None:
        network = from_fields.network_of(fields)
        params = functional.by_path(small_networks.random_params(network))
    output = folder / NAMES[format_name]
    result = writing.write(
        format_name,
        output,
        params=params,
        fields=fields,
        image_shape=(*fields["data.image_size"], fields["data.channels"]),
        provenance={"run": "runs/x", "step": np.int64(7)},
    )
    return output, params, result


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def library():
    return pytest.importorskip("diffusers")


# ---- what others make of it ----------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        DDPM,
        ADM,
        {"model.middle_attention": "plain", "model.qkv_order": "new"},
        {"model.middle_attention": "none", "data.image_size": (8, 16)},
    ],
    ids=["legacy heads", "ddpm", "adm", "plain middle", "oblong"],
)
def test_diffusers_loads_it_and_computes_the_same(tmp_path, library, torch, changes):
    fields = small_networks.tiny(changes)
    output, params, result = write("diffusers", tmp_path, fields)
    pipeline = library.DDPMPipeline.from_pretrained(output)
    height, width = fields["data.image_size"]
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    inputs = [x, torch.tensor([3, 700])]
    if fields["model.class_conditional"]:
        inputs.append(torch.tensor([4, 0]))
        assert "class_labels" in result.sentences[0]
    with torch.no_grad():
        wanted = pipeline.unet(*inputs).sample
    network = from_fields.network_of(fields)
    got = small_networks.output(network, small_networks.nested(params), *inputs)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
    assert sorted(path.name for path in result.paths) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "model_index.json",
        "scheduler_config.json",
    ]


@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_what_is_said_of_the_other_library_is_true(tmp_path, library, torch, variance):
    steps = 20
    fields = small_networks.tiny(
        {"diffusion.num_steps": steps, "diffusion.variance": variance}
    )
    _, _, result = write("diffusers", tmp_path, fields)
    said = " ".join(result.sentences)
    assert f"1 … {steps}" in said
    assert ("DDIMScheduler" in said) == (variance == "learned_range")
    scheduler = library.DDPMScheduler.from_config(diffusers_scheduler.config(fields))
    scheduler.set_timesteps(steps)
    with pytest.raises(ValueError, match=str(steps)):
        scheduler.set_timesteps(steps + 1)
    other = library.DDIMScheduler.from_config(scheduler.config)
    other.set_timesteps(5)
    channels = 6 if variance == "learned_range" else 3
    output, x_t = torch.zeros(1, channels, 4, 4), torch.zeros(1, 3, 4, 4)
    if variance == "learned_range":
        with pytest.raises(RuntimeError, match="size of tensor"):
            other.step(output, other.timesteps[0], x_t)
        output = output[:, :3]
    assert other.step(output, other.timesteps[0], x_t).prev_sample.shape == x_t.shape


@pytest.mark.parametrize("name", sorted({*schedules.SCHEDULES, "custom", "zero snr"}))
def test_the_scheduler_has_the_same_betas(library, name):
    changes = {"diffusion.num_steps": 50, "diffusion.schedule": name}
    arguments = {}
    if name == "custom":
        arguments["betas"] = changes["diffusion.betas"] = tuple(
            np.linspace(0.01, 0.3, 50).tolist()
        )
    if name == "zero snr":
        name = changes["diffusion.schedule"] = "linear"
        arguments["zero_terminal_snr"] = True
        changes["diffusion.zero_terminal_snr"] = True
    config = diffusers_scheduler.config(small_networks.tiny(changes))
    betas = library.DDPMScheduler.from_config(config).betas
    wanted = schedules.make_betas(name, 50, **arguments)
    np.testing.assert_allclose(betas, wanted, rtol=2e-6)
    if changes["diffusion.schedule"] == "cosine":
        assert config["beta_schedule"] == "squaredcos_cap_v2"


@pytest.mark.parametrize("variance", diffusers_scheduler.VARIANCES)
@pytest.mark.parametrize("prediction", diffusers_scheduler.PREDICTIONS)
def test_the_scheduler_takes_the_same_step(library, torch, prediction, variance):
    fields = small_networks.tiny(
        {"diffusion.prediction": prediction, "diffusion.variance": variance}
    )
    scheduler = library.DDPMScheduler.from_config(diffusers_scheduler.config(fields))
    rng = np.random.default_rng(0)
    x_t = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    channels = 6 if variance == "learned_range" else 3
    out = rng.normal(size=(1, 4, 4, channels)).astype(np.float32)
    tables = process.tables(
        process.Schedule.from_betas(schedules.make_betas("linear", 1000))
    )
    ours = reverse.denoiser(
        tables,
        lambda x, t: out,
        prediction=prediction,
        variance=variance,
        x_0_hooks=(reverse.clipping(-1, 1),),
    )(x_t, np.asarray([400]))

    def step(seed):
        noise = torch.Generator().manual_seed(seed)
        tensors = [torch.from_numpy(a.transpose(0, 3, 1, 2)) for a in (out, x_t)]
        made = scheduler.step(tensors[0], 400, tensors[1], generator=noise)
        shape = tensors[1].shape
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return made, drawn

    made, drawn = step(5)
    x_0 = made.pred_original_sample.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours.x_0, x_0, rtol=1e-4, atol=2e-5)
    noise = drawn.numpy().transpose(0, 2, 3, 1)
    sample = made.prev_sample.numpy().transpose(0, 2, 3, 1)
    got = ours.mean + np.exp(0.5 * ours.log_var) * noise
    np.testing.assert_allclose(got, sample, rtol=1e-4, atol=2e-5)


def test_the_scheduler_keeps_the_same_steps(library):
    scheduler = library.DDPMScheduler.from_config(
        diffusers_scheduler.config(small_networks.tiny())
    )
    scheduler.set_timesteps(50)
    schedule = process.Schedule.from_betas(schedules.make_betas("linear", 1000))
    kept = respacing.respace(schedule, 50).timesteps
    np.testing.assert_array_equal(scheduler.timesteps.numpy()[::-1], kept)


# ---- round trips ---------------------------------------------------------------------


@pytest.mark.parametrize("format_name", sorted(EXPORTS))
@pytest.mark.parametrize("changes", [OPENAI, {**OPENAI, "model.qkv_order": "new"}])
def test_nothing_changes_by_export_and_import(tmp_path, format_name, changes):
    fields = small_networks.tiny(changes)
    if format_name == "openai":
        pytest.importorskip("torch")
    output, params, _ = write(format_name, tmp_path, fields)
    sentence = writing.reload_and_compare(format_name, output, params, fields)
    assert f"all {len(params)} parameters are equal bit for bit" in sentence
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("name", "format_name", "changes"),
    [
        ("gd_adm", "openai", {}),
        ("id_cifar_like", "openai", {}),
        ("gd_classifier_attention", "openai", {}),
        (
            "diffusers_ddpm_cifar_like",
            "diffusers",
            {**DDPM, "model.channels": 32, "model.channel_mult": (1, 2, 2)},
        ),
    ],
)
def test_published_files_come_out_as_they_went_in(tmp_path, name, format_name, changes):
    if format_name == "openai":
        pytest.importorskip("torch")
    published = dict(np.load(GOLDEN / f"{name}_weights.npz"))
    safetensors.numpy.save_file(published, tmp_path / "published.safetensors")
    opened = open_lib.open_source(tmp_path / "published.safetensors")
    fields = small_networks.tiny({"model.norm_groups": 32, **changes})
    shapes = from_fields.shapes_of(golden_networks.network(name))
    params = {
        entry.path: mapping.to_ours(entry, opened.tensors)
        for entry in FORMATS[format_name].entries(shapes, fields)
    }
    output, _, _ = write(format_name, tmp_path, fields, params)
    again = open_lib.open_source(output)
    assert set(again.tensors) == set(published)
    for key, array in published.items():
        np.testing.assert_array_equal(again.tensors[key], array, err_msg=key)


def test_the_header_of_our_own_file_holds_config_and_origin(tmp_path):
    fields = small_networks.tiny(ADM)
    output, params, _ = write("safetensors", tmp_path, fields)
    with safetensors.safe_open(output, "numpy") as file:
        assert set(file.keys()) == set(params)
        header = file.metadata()
    assert json.loads(header["provenance"]) == {"run": "runs/x", "step": 7}
    content = open_lib.open_source(output).configs["ddpm_jax"]
    assert content["fields"]["model.head_channels"] == 8


def test_a_changed_file_is_noticed(tmp_path):
    fields = small_networks.tiny()
    output, params, _ = write("safetensors", tmp_path, fields)
    changed = {**params, "conv_in/bias": params["conv_in/bias"] + 1e-6}
    with pytest.raises(ValueError, match=r"conv_in/bias came back from .*net\.safet"):
        writing.reload_and_compare("safetensors", output, changed, fields)


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_name", "changes", "words"),
    [
        ("diffusers", {"model.kind": "upsampler"}, "model.kind='upsampler': .* plain"),
        (
            "diffusers",
            {"model.channel_mult": (0.5, 1)},
            r"model.channel_mult=\(0.5, 1\): .* first entry must be 1",
        ),
        ("diffusers", {"model.resample": "pool"}, "model.resample='pool'"),
        (
            "diffusers",
            {"model.middle_attention": "plain", "model.scale_shift": False},
            "model.middle_attention='plain'",
        ),
        (
            "diffusers",
            {"model.attention_resolutions": (8, 4)},
            "model.num_heads=2: .* at widths 16, 32",
        ),
        ("diffusers", {"diffusion.prediction": "x_prev"}, "diffusion.prediction='x_p"),
        ("diffusers", {"diffusion.variance": "learned"}, "diffusion.variance='learned"),
        (
            "diffusers",
            {"diffusion.rescale_timesteps": True, "diffusion.num_steps": 500},
            "diffusion.rescale_timesteps=True: .* with 500 steps",
        ),
        ("openai", {}, "model.norm_groups=8: the OpenAI code has 32 alone"),
        (
            "openai",
            {**DDPM, "model.norm_groups": 32},
            "model.sinusoid='sin_cos': the OpenAI code has 'cos_sin' alone",
        ),
        ("onnx", {}, "unknown format 'onnx': choose one of diffusers, openai, safet"),
    ],
)
def test_what_a_format_cannot_express_is_refused_by_its_field(
    tmp_path, format_name, changes, words
):
    fields = small_networks.tiny(changes)
    with pytest.raises(errors.Refusal, match=words):
        writing.write(
            format_name,
            tmp_path / NAMES.get(format_name, "net"),
            params={},
            fields=fields,
            image_shape=SHAPE,
            provenance={},
        )
    assert list(tmp_path.iterdir()) == []


def test_timesteps_scaled_by_one_are_no_reason_to_refuse():
    fields = small_networks.tiny({"diffusion.rescale_timesteps": True})
    assert diffusers_scheduler.config(fields)["num_train_timesteps"] == 1000


def test_an_output_that_exists_stays(tmp_path):
    fields = small_networks.tiny()
    (tmp_path / "net.safetensors").write_text("mine")
    with pytest.raises(errors.Refusal, match="exists already and is not overwritten"):
        write("safetensors", tmp_path, fields)
    assert (tmp_path / "net.safetensors").read_text() == "mine"


@pytest.mark.parametrize("format_name", ["safetensors", "openai"])
def test_a_name_that_no_program_knows_is_refused(tmp_path, format_name):
    good = pathlib.Path(NAMES[format_name]).suffix
    with pytest.raises(errors.Refusal, match=rf"does not end in \{good}, .*net\{good}"):
        writing.write(
            format_name,
            tmp_path / "net.st",
            params={},
            fields=small_networks.tiny(OPENAI),
            image_shape=SHAPE,
            provenance={},
        )


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    for format_name in ("safetensors", "diffusers"):
        with pytest.raises(OSError, match="disk full"):
            write(format_name, tmp_path, small_networks.tiny())
    assert list(tmp_path.iterdir()) == []


def test_without_pytorch_the_openai_format_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(errors.Refusal, match=r"pip install 'ddpm-jax\[convert\]'"):
        write("openai", tmp_path, small_networks.tiny(OPENAI))
