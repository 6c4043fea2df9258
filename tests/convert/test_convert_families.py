"""Whole imports: a file opened, recognised, mapped computes what it computed before."""

import shutil

import diffusers_folder
import from_fields
import jax
import numpy as np
import pytest
import random_diffusers

from ddpm_jax.convert import families, files, ho, mapping, readers, recognise
from ddpm_jax.core import errors

NETWORKS = from_fields.GOLDEN / "networks"
OPENAI = {
    # What the shapes of these small networks cannot tell.
    "gd_adm": {"model.head_channels": 16},
    "id_cifar_like": {"model.num_heads": 4},
    "gd_classifier_attention": {"model.head_channels": 16},
}
PROCESS = {
    "data.image_size": (32,),
    "model.qkv_order": "legacy",
    "diffusion.schedule": "linear",
    "diffusion.num_steps": 1000,
    "diffusion.rescale_timesteps": False,
    "diffusion.prediction": "noise",
}
DDPM = {
    "data.image_size": (16, 16),
    "diffusion.schedule": "linear_fixed",
    "diffusion.num_steps": 1000,
    "diffusion.prediction": "noise",
    "diffusion.variance": "fixed_large",
}


def weights(name):
    """Return the tensors of a golden network by key."""
    with np.load(NETWORKS / f"{name}_weights.npz") as found:
        return dict(found)


def check_output(source, given, golden):
    """Compare our network with the import with golden inputs and outputs."""
    told = recognise.recognise(source, given)
    net = from_fields.network_of(told.fields)
    params = from_fields.imported(source, net, told.fields)
    x = np.moveaxis(golden["x"], 1, -1)
    labels = None
    if told.fields["model.class_conditional"]:
        labels = golden["y"].astype(np.int32)
    # Compiled without optimisation, which takes longer than it saves here.
    fast = {"xla_backend_optimization_level": 0}
    apply = jax.jit(net.apply, compiler_options=fast)
    got = apply(params, x, golden["t"], labels)
    out = golden["out"] if "out" in golden else golden["logits"]
    wanted = np.moveaxis(out, 1, -1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
    return told


@pytest.mark.parametrize("name", OPENAI)
def test_openai_file_computes_what_the_published_code_computed(name, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(value) for key, value in weights(name).items()}
    torch.save(tensors, tmp_path / f"{name}.pt")
    source = files.open_source(tmp_path / f"{name}.pt")
    assert source.family == "openai"
    with np.load(NETWORKS / f"{name}.npz") as golden:
        check_output(source, {**PROCESS, **OPENAI[name]}, dict(golden))


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def test_diffusers_folder_computes_what_diffusers_computed(tmp_path):
    tensors = weights("diffusers_ddpm_cifar_like")
    source = files.open_source(diffusers_folder.save(tmp_path / "model", tensors))
    assert source.family == "diffusers"
    with np.load(NETWORKS / "diffusers_ddpm_cifar_like.npz") as golden:
        told = check_output(source, {}, dict(golden))
    assert told.fields["diffusion.variance"] == "fixed_large"
    assert told.fields["diffusion.schedule"] == "linear_fixed"
    assert told.origin["model.num_heads"] == "unet/config.json"


@pytest.mark.parametrize("naming", ["old", "1x1", "flat", "unet"])
def test_other_forms_of_a_diffusers_model(naming, tmp_path):
    tensors = weights("diffusers_ddpm_cifar_like")
    wanted = dict(tensors)
    if naming == "old":
        for new, old in OLD.items():
            tensors = {k.replace(f".{new}.", f".{old}."): v for k, v in tensors.items()}
    if naming == "1x1":
        tensors = {
            k: v[..., None, None] if ".to_" in k and v.ndim == 2 else v
            for k, v in tensors.items()
        }
    path = diffusers_folder.save(tmp_path / "model", tensors)
    if naming == "flat":  # as the models of google/ lie
        for file in (*path.glob("unet/*"), *path.glob("scheduler/*")):
            shutil.move(file, path / file.name)
        (path / "unet").rmdir()
    source = files.open_source(path / "unet" if naming == "unet" else path)
    assert any("old" in note for note in source.notes) == (naming == "old")
    assert source.shapes == {key: value.shape for key, value in wanted.items()}
    for key, value in wanted.items():
        np.testing.assert_array_equal(source.tensors[key], value)
    told = recognise.recognise(source, {})
    assert told.fields["diffusion.variance"] == "fixed_large"


@pytest.mark.parametrize("name", sorted(random_diffusers.CONFIGS.keys() - {"ddpm"}))
def test_every_kind_of_diffusers_network(name, tmp_path):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    model, inputs = random_diffusers.make(name)
    model.save_pretrained(tmp_path / "unet")
    learned = model.config.out_channels > model.config.in_channels
    variance = "learned_range" if learned else "fixed_small"
    process = diffusers.DDPMScheduler(variance_type=variance)
    process.save_pretrained(tmp_path / "scheduler")
    with torch.no_grad():
        out = model(*inputs).sample.numpy()
    x, t, *labels = (array.numpy() for array in inputs)
    golden = {"x": x, "t": t.astype(np.int32), "out": out}
    if labels:
        golden["y"] = labels[0]
    told = check_output(files.open_source(tmp_path / "unet"), {}, golden)
    assert told.fields["diffusion.variance"] == variance


def ddpm_tensors(layout):
    """Return the golden DDPM network under the names of the DDPM code."""
    folder_fields = {"facts.layout": layout}
    from_diffusers = weights("diffusers_ddpm_cifar_like")
    net = ddpm_network()
    shapes = from_fields.shapes_of(net)
    theirs = families.entries("diffusers", shapes, {})
    ours = {e.path: mapping.to_ours(e, from_diffusers) for e in theirs}
    found = {}
    for entry in families.entries("ho", shapes, folder_fields):
        found |= mapping.to_theirs(entry, ours[entry.path])
    return found


def ddpm_network():
    fields = {
        **ho.DIALECT,
        **DDPM,
        "data.channels": 3,
        "model.channels": 32,
        "model.channel_mult": (1, 2, 2),
        "model.num_res_blocks": 1,
        "model.attention_resolutions": (8,),
    }
    return from_fields.network_of(fields)


class Reader:
    """What tensorflow.train.load_checkpoint gives."""

    def __init__(self, variables):
        self.variables = variables

    def get_variable_to_shape_map(self):
        return {name: list(v.shape) for name, v in self.variables.items()}

    def get_variable_to_dtype_map(self):
        class Float32:
            name = "float32"

        return dict.fromkeys(self.variables, Float32)

    def get_tensor(self, name):
        return self.variables[name]


def save_tensorflow(folder, variables, monkeypatch):
    """Stand in for a TensorFlow checkpoint, which only TensorFlow can read."""
    prefix = folder / "model.ckpt-790000"
    prefix.with_name(f"{prefix.name}.index").write_bytes(b"index")
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(b"data")
    found = Reader(variables), (KeyError,)
    monkeypatch.setattr(readers, "_tensorflow_reader", lambda prefix: found)
    return prefix


def test_ddpm_checkpoint_averaged_weights_first(tmp_path, monkeypatch):
    variables = {"global_step": np.zeros((), np.int64)}
    for key, value in ddpm_tensors("tensorflow").items():
        variables[f"model/{key}"] = value + 1
        variables[f"model/{key}/ExponentialMovingAverage"] = value
        variables[f"model/{key}/Adam"] = value
        variables[f"model/{key}/Adam_1"] = value
    prefix = save_tensorflow(tmp_path, variables, monkeypatch)
    for path in (prefix, tmp_path, f"{prefix}.index"):
        source = files.open_source(path)
        assert (source.family, source.path) == ("ho", prefix)
    assert "averaged weights (EMA) were taken" in source.describe()
    assert f"{2 * len(source.shapes)} slots of the optimizer" in source.describe()
    with np.load(NETWORKS / "diffusers_ddpm_cifar_like.npz") as golden:
        check_output(source, DDPM, dict(golden))
    del variables["model/conv_in/W/ExponentialMovingAverage"]  # as if cut short
    with pytest.raises(errors.Refusal, match=r"fetch its \.index and \.data"):
        source.tensors["conv_in/W"]


def test_tensorflow_itself(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    v1 = tensorflow.compat.v1
    wanted = {key: value[..., :1] for key, value in ddpm_tensors("tensorflow").items()}
    with v1.Graph().as_default(), v1.Session() as session:
        for key, value in wanted.items():
            for name, start in ((key, value + 1), (f"{key}{ho.AVERAGE}", value)):
                v1.get_variable(f"model/{name}", initializer=start)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt-3"))
    source = files.open_source(tmp_path / "model.ckpt-3")
    assert source.tensors.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(source.tensors[key], value)


def test_ddpm_port(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {k: torch.from_numpy(v) for k, v in ddpm_tensors("pytorch").items()}
    assert tensors["mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    torch.save(tensors, tmp_path / "model-790000.ckpt")
    source = files.open_source(tmp_path / "model-790000.ckpt")
    with np.load(NETWORKS / "diffusers_ddpm_cifar_like.npz") as golden:
        check_output(source, DDPM, dict(golden))
