"""Whole imports: a file opened, recognised, mapped computes what it computed before."""

import shutil

import chex
import ddpm_names
import diffusers_folder
import from_fields
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert import readers, recognise
from ddpm_jax.convert.formats import ddpm
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
    if "grad" in golden:
        check_classifier(net, params, x, golden, fast)
        return told
    apply = jax.jit(net.apply, compiler_options=fast)
    got = apply(params, x, golden["t"], labels)
    wanted = np.moveaxis(golden["out"], 1, -1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5)
    return told


def check_classifier(net, params, x, golden, fast):
    """Compare a classifier's logits and its gradient by the image."""

    def log_probability(x):
        logits = net.apply(params, x, golden["t"])
        chosen = jax.nn.one_hot(golden["y"], logits.shape[-1])
        return jnp.sum(jax.nn.log_softmax(logits) * chosen), logits

    both = jax.grad(log_probability, has_aux=True)
    gradient, logits = jax.jit(both, compiler_options=fast)(x)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=2e-5)
    wanted = np.moveaxis(golden["grad"], 1, -1)
    assert np.abs(gradient - wanted).max() < 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("name", OPENAI)
def test_openai_file_computes_what_the_published_code_computed(name, tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {key: torch.from_numpy(value) for key, value in weights(name).items()}
    torch.save(tensors, tmp_path / f"{name}.pt")
    source = open_lib.open_source(tmp_path / f"{name}.pt")
    assert source.format == "openai"
    with np.load(NETWORKS / f"{name}.npz") as golden:
        check_output(source, {**PROCESS, **OPENAI[name]}, dict(golden))


OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def test_diffusers_folder_computes_what_diffusers_computed(tmp_path):
    tensors = weights("diffusers_ddpm_cifar_like")
    source = open_lib.open_source(diffusers_folder.save(tmp_path / "model", tensors))
    assert source.format == "diffusers"
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
    source = open_lib.open_source(path / "unet" if naming == "unet" else path)
    assert any("old" in note for note in source.notes) == (naming == "old")
    assert source.shapes == {key: value.shape for key, value in wanted.items()}
    for key, value in wanted.items():
        np.testing.assert_array_equal(source.tensors[key], value)
    told = recognise.recognise(source, {})
    assert told.fields["diffusion.variance"] == "fixed_large"


def ddpm_tensors(rename):
    """Return the golden DDPM network under the names of the DDPM code."""
    tensors = weights("diffusers_ddpm_cifar_like")
    return dict(rename(key, value) for key, value in tensors.items())


def check_equals_the_diffusers_model(source, folder):
    """Compare our parameters, bit for bit, with those of the model as diffusers has it.

    Its outputs are checked above.
    """
    tensors = weights("diffusers_ddpm_cifar_like")
    other = open_lib.open_source(diffusers_folder.save(folder / "model", tensors))
    both = []
    for opened, given in ((source, DDPM), (other, {})):
        fields = recognise.recognise(opened, given).fields
        model = {k: v for k, v in fields.items() if k.startswith("model.")}
        del model["model.initialisation"]
        net = from_fields.network_of(fields)
        both.append((model, from_fields.imported(opened, net, fields)))
    (ours, params), (theirs, wanted) = both
    assert ours == {name: theirs[name] for name in ours}
    chex.assert_trees_all_equal(params, wanted)


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
    for key, value in ddpm_tensors(ddpm_names.tensorflow).items():
        variables[f"model/{key}"] = value + 1
        variables[f"model/{key}/ExponentialMovingAverage"] = value
        variables[f"model/{key}/Adam"] = value
        variables[f"model/{key}/Adam_1"] = value
    prefix = save_tensorflow(tmp_path, variables, monkeypatch)
    for path in (prefix, tmp_path, f"{prefix}.index"):
        source = open_lib.open_source(path)
        assert (source.format, source.path) == ("ddpm", prefix)
    assert "averaged weights (EMA) were taken" in source.describe()
    assert f"{2 * len(source.shapes)} slots of the optimizer" in source.describe()
    check_equals_the_diffusers_model(source, tmp_path)
    del variables["model/conv_in/W/ExponentialMovingAverage"]  # as if cut short
    with pytest.raises(errors.Refusal, match=r"fetch its \.index and \.data"):
        source.tensors["conv_in/W"]


def test_tensorflow_itself(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    v1 = tensorflow.compat.v1
    tensors = ddpm_tensors(ddpm_names.tensorflow)
    wanted = {key: value[..., :1] for key, value in tensors.items()}
    with v1.Graph().as_default(), v1.Session() as session:
        for key, value in wanted.items():
            for name, start in ((key, value + 1), (f"{key}{ddpm.AVERAGE}", value)):
                v1.get_variable(f"model/{name}", initializer=start)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt-3"))
    source = open_lib.open_source(tmp_path / "model.ckpt-3")
    assert source.tensors.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(source.tensors[key], value)


def test_ddpm_port(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = ddpm_tensors(ddpm_names.pytorch_copy)
    assert tensors["mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    path = tmp_path / "model-790000.ckpt"
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, path)
    check_equals_the_diffusers_model(open_lib.open_source(path), tmp_path)
