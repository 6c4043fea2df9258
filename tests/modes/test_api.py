"""The Python interface against the command line, and networks of one's own."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs

import ddpm_jax
from ddpm_jax import config as config_lib
from ddpm_jax.core import conditions, errors, keys
from ddpm_jax.diffusion import samplers
from ddpm_jax.models import custom
from ddpm_jax.runtime import devices

DOCUMENT = (small_runs.ROOT / "docs" / "your_network.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
STEPS = 4


@pytest.fixture(scope="module")
def workdir(first_run, quickly, tmp_path_factory):
    """A copy of the tiny run, for the command line writes into it."""
    folder = tmp_path_factory.mktemp("api") / "run"
    return pathlib.Path(shutil.copytree(first_run[0], folder))


@pytest.fixture(scope="module")
def run(workdir):
    return ddpm_jax.load(workdir)


def archive(tell, workdir, name, **fields):
    """What --mode=sample makes, in a folder whose name holds `name`."""
    given = [f"--config.sampling.{field}={value}" for field, value in fields.items()]
    told = tell("--mode=sample", f"--workdir={workdir}", *given)
    assert told.status == 0, told.err
    (path,) = (workdir / "samples").glob(f"*{name}*/samples.npz")
    with np.load(path) as arrays:
        return arrays["arr_0"]


# ---- a trained run -------------------------------------------------------------------


def test_what_a_run_knows(run):
    assert run.step == 6
    assert run.class_names == tuple("0123456789")
    assert run.schedule.num_steps == small_runs.T
    run.config.sampling.steps = 1  # a copy
    assert run.config.sampling.steps == 4


def test_images_are_those_of_the_command_line(run, workdir, tell):
    before = small_runs.content(workdir)
    images = run.sample(16)
    assert small_runs.content(workdir) == before
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, archive(tell, workdir, "ancestral-4-"))


def test_settings_mean_the_same_as_on_the_command_line(run, workdir, tell):
    images = run.sample(
        12,
        labels=[3, "7"],
        seed=2**32 - 1,
        steps=3,
        method="ddim",
        eta=0.5,
        guidance_scale=2,
        weights="raw",
        batch_size=8,
    )
    there = archive(
        tell,
        workdir,
        "ddim-3-",
        num_samples=12,
        labels="3,7",
        seed=2**32 - 1,
        steps=3,
        method="ddim",
        eta=0.5,
        guidance_scale=2,
        weights="raw",
        batch_size=8,
    )
    np.testing.assert_array_equal(images, there)


def test_another_seed_does_not_compile_again(run, caplog):
    first = run.sample(16, seed=1)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        second = run.sample(16, seed=2)
    assert (first != second).any()
    assert "sample" not in "".join(
        record.message for record in caplog.records if "Compiling" in record.message
    )


@pytest.mark.parametrize(
    ("num", "batch_size", "counts"),
    [(16, None, [16]), (20, 8, [8, 16, 20]), (5, 64, [5])],
)
def test_progress_is_told_after_every_batch(run, num, batch_size, counts):
    told = []
    images = run.sample(
        num, batch_size=batch_size, progress=lambda *counted: told.append(counted)
    )
    assert told == [(done, num) for done in counts]
    assert len(images) == num


@pytest.mark.parametrize(
    "settings", [{}, {"method": "ddim", "eta": 0.5, "guidance_scale": 2.0}]
)
def test_a_trajectory_ends_at_the_images_and_changes_none(run, settings):
    settings = {"batch_size": 8, "seed": 3, **settings}
    images = run.sample(12, **settings)
    found = run.sample(12, trajectory=np.array([0, 2, 3]), **settings)
    np.testing.assert_array_equal(found.images, images)
    assert found.images.dtype == np.uint8
    assert found.states.shape == found.estimates.shape == (3, 12, 8, 8, 1)
    assert found.states.dtype == found.estimates.dtype == np.float32
    # The last of 4 positions is the image before it is rounded to bytes.
    grey = np.clip(np.round((found.states[-1] + 1) * 127.5), 0, 255)
    np.testing.assert_array_equal(grey, images)
    assert (grey / 127.5 - 1 != found.states[-1]).any()
    # At t_next = −1 there is no noise: x is x̂_0, but for rounding in its sum.
    np.testing.assert_allclose(found.states[-1], found.estimates[-1], atol=2e-4)
    assert np.abs(found.states[0] - found.states[-1]).mean() > 0.1


def test_a_trajectory_is_kept_position_by_position(run):
    every = run.sample(8, trajectory=range(4))
    for position in range(4):
        one = run.sample(8, trajectory=[position])
        np.testing.assert_array_equal(one.states[0], every.states[position])
        np.testing.assert_array_equal(one.estimates[0], every.estimates[position])


def test_one_label_by_index_or_name_or_array(run):
    by_index = run.sample(16, labels=3)
    np.testing.assert_array_equal(run.sample(16, labels="3"), by_index)
    np.testing.assert_array_equal(run.sample(16, labels=np.array([3])), by_index)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"labels": "cat"}, "unknown class 'cat'"),
        ({"labels": 10}, "label 10 is out of range"),
        ({"steps": small_runs.T + 1}, "steps: 25"),
        ({"method": "euler"}, "'euler': choose one of ancestral, ddim"),
        ({"eta": 0.5}, "set method=ddim"),
        ({"weights": "best"}, "'best'"),
        ({"seed": -1}, "seed=-1: "),
        ({"guidance_scale": "high"}, "guidance_scale='high': give a number"),
        ({"steps": 2.5}, "steps=2.5: give a whole number"),
        ({"seed": True}, "seed=True: give a whole number"),
        ({"batch_size": np.float32(4)}, "batch_size=4.0: give a whole number"),
        ({"method": 3}, "method=3: give a name"),
        ({"labels": 1.5}, "labels = (1.5,)"),
    ],
)
def test_what_the_run_cannot_meet_is_refused(run, setting, words):
    with pytest.raises(errors.Refusal, match=re.escape(words)) as caught:
        run.sample(4, **setting)
    assert "sampling." not in str(caught.value)


def test_no_images_are_refused(run):
    with pytest.raises(errors.Refusal, match="num=0: "):
        run.sample(0)


def test_the_choice_of_weights_is_said_once(workdir, capsys):
    opened = ddpm_jax.load(workdir)
    raw, ema = opened.params("raw"), opened.params("ema")
    opened.params("raw")
    said = capsys.readouterr().out
    assert said.count("raw weights, as asked") == 1
    assert said.count("EMA weights, as asked") == 1
    differs = jax.tree.map(lambda a, b: bool((a != b).any()), raw, ema)
    assert any(jax.tree.leaves(differs))


def test_the_denoiser_applies_the_network(run):
    tables, denoise = run.denoiser(weights="raw", labels=jnp.array([3, 4]))
    x_t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    t = jnp.array([5, 20])
    output = jax.jit(run.network.apply)(run.params("raw"), x_t, t, jnp.array([3, 4]))
    noise = output[..., :1]  # the other half is the learned variance
    # DDPM eq. 15 from the noise that the network predicts, clipped.
    alpha_bar = run.schedule.alpha_bar[np.array(t)][:, None, None, None]
    wanted = (x_t - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
    np.testing.assert_allclose(
        jax.jit(denoise)(x_t, t).x_0, np.clip(wanted, -1, 1), rtol=1e-4, atol=1e-5
    )
    assert tables.num_steps == small_runs.T


def test_the_denoiser_of_fewer_steps_makes_the_images(run):
    labels = [3, 1, 4, 1]
    tables, denoise = run.denoiser(steps=3, weights="raw", labels=jnp.array(labels))
    assert tables.num_steps == denoise.tables.num_steps == 3
    index = np.arange(4)
    start = keys.key_for(0, "sample/x_T", index=index)
    stream = keys.key_for(0, "sample/noise", index=index)
    chain = samplers.sample(
        tables,
        denoise,
        step=samplers.ancestral(),
        x_T=keys.normal_each(start, (8, 8, 1)),
        noise_fn=lambda k: keys.normal_each(keys.fold_in_each(stream, k), (8, 8, 1)),
    )
    given = {"labels": labels, "method": "ancestral", "weights": "raw"}
    made = run.sample(4, steps=3, trajectory=[2], **given)
    np.testing.assert_allclose(chain.x_0, made.states[0], atol=1e-4)


def test_tables_of_another_process_than_the_denoiser_are_refused(run):
    _, denoise = run.denoiser()
    tables, _ = run.denoiser(steps=3)
    with pytest.raises(errors.Refusal, match=f"3 steps, .* of {small_runs.T} steps"):
        samplers.sample(
            tables,
            denoise,
            step=samplers.ddim(),
            x_T=jnp.zeros((1, 8, 8, 1)),
            noise_fn=lambda k: jnp.zeros((1, 8, 8, 1)),
        )
    with pytest.raises(errors.Refusal, match="25"):
        run.denoiser(steps=small_runs.T + 1)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(errors.Refusal, match="no run in"):
        ddpm_jax.load(tmp_path)


def test_the_package_has_three_names():
    assert ddpm_jax.__all__ == ["load", "network", "train"]
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = ddpm_jax.lode


def test_numbers_of_numpy_and_jax_are_numbers(run):
    settings = {"method": "ddim", "eta": 0.5, "guidance_scale": 2, "seed": 3}
    plain = run.sample(8, labels=[1, 2, 3], steps=2, batch_size=8, **settings)
    others = {
        "labels": range(1, 4),
        "steps": np.int64(2),
        "batch_size": np.uint8(8),
        "method": np.str_("ddim"),
        "eta": np.float16(0.5),
        "guidance_scale": jnp.float32(2),
        "seed": np.array(3),
    }
    np.testing.assert_array_equal(run.sample(np.int32(8), **others), plain)
    labels = [np.int8(1), "2", np.str_("3")]
    again = {**settings, "steps": 2, "batch_size": 8, "labels": labels}
    np.testing.assert_array_equal(run.sample(8, **again), plain)


# ---- a network of one's own ----------------------------------------------------------


def small_config():
    config = config_lib.base()
    config.diffusion.num_steps = small_runs.T
    config.train.update(steps=STEPS, batch_size=16, sample_every=0, validate_every=0)
    config.train.update(ema_decay=(0.5,), log_every=2, checkpoint_every=2)
    config.sampling.steps = 3
    return config


def scale_network(dtype=jnp.float32, channels=1):
    """One number times the input, plus one number."""

    def apply(params, x, t, labels, dropout_keys):
        scaled = params["layers"][0] * x + params["layers"][1]
        return jnp.repeat(scaled, channels, axis=-1).astype(dtype)

    return ddpm_jax.network(
        lambda key: {"layers": [jax.random.normal(key), jnp.zeros(())]}, apply
    )


@pytest.fixture(scope="module")
def own_run(workdir):
    """A run of a network of one's own, trained beside `workdir`."""
    folder = workdir.parent / "own"
    ddpm_jax.train(small_config(), folder, network=scale_network())
    return folder


def test_the_example_of_the_document(workdir, tmp_path):
    program = BLOCKS[0] + BLOCKS[1]
    program += "assert images.shape == (16, 8, 8, 1)\n"
    program += "assert (run.sample(16, seed=0) == images).all()\n"
    # A process of its own, with one device as a reader has it.
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(small_runs.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    records = small_runs.metrics(tmp_path / "runs" / "own")
    losses = [record["loss"] for record in records if "loss" in record]
    # The output starts at 0, where the mean loss is 1.
    assert losses[-1] < 0.5 < losses[0]


def test_the_conditioned_example_is_a_network():
    names = {"jnp": jnp, "jax": jax, "ddpm_jax": ddpm_jax}
    exec(compile(BLOCKS[2], "docs/your_network.md", "exec"), names)
    network = names["labelled"]
    params = network.init(jax.random.key(0))
    given = {"label": jnp.array([3, 10], jnp.int32)}
    output = network.apply(params, jnp.ones((2, 8, 8, 1)), jnp.array([0, 5]), given)
    wanted = np.asarray(params["label"])[[3, 10]].reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(output, np.broadcast_to(wanted, output.shape))
    assert network.condition_spec["label"] == conditions.Spec((), "int32", 10)


@pytest.mark.parametrize("block", BLOCKS[3:], ids=["linen", "nnx"])
def test_the_flax_examples_are_networks(block):
    names = {"jnp": jnp, "jax": jax, "ddpm_jax": ddpm_jax}
    exec(compile(block, "docs/your_network.md", "exec"), names)
    network = names["network"]
    params = network.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        lambda leaf: leaf.shape, network.shapes
    )
    x, t = jnp.ones((2, 8, 8, 1)), jnp.array([0, 5])
    output = network.apply(params, x, t)
    assert output.shape == x.shape
    flax_output = {
        "linen": lambda: names["linen"].apply(params, x, t),
        "graph": lambda: names["nnx"].merge(names["graph"], names["nnx"].State(params))(
            x, t
        ),
    }
    (direct,) = [make() for name, make in flax_output.items() if name in names]
    np.testing.assert_allclose(output, direct, rtol=1e-6)


def test_lists_become_paths_and_come_back(own_run):
    network = scale_network()
    assert sorted(network.shapes["layers"]) == ["0", "1"]
    params = {"layers": {"0": jnp.array(2.0), "1": jnp.array(0.5)}}
    x = jnp.ones((1, 2, 2, 1))
    np.testing.assert_array_equal(network.apply(params, x, jnp.zeros(1)), 2.5 * x)


def test_a_run_goes_on_with_its_network(own_run, tmp_path):
    once = tmp_path / "once"
    twice = tmp_path / "twice"
    config = small_config()
    ddpm_jax.train(config, once, network=scale_network())
    config.train.steps = 2
    ddpm_jax.train(config, twice, network=scale_network())
    config.train.steps = STEPS
    resumed = ddpm_jax.train(config, twice, network=scale_network())
    whole = ddpm_jax.load(once, network=scale_network())
    for weights in ("raw", "ema"):
        same = jax.tree.map(
            lambda a, b: a.tobytes() == b.tobytes(),
            jax.device_get(whole.params(weights)),
            jax.device_get(resumed.params(weights)),
        )
        assert all(jax.tree.leaves(same))


def test_writers_are_given_every_record_and_picture(workdir, tmp_path):
    pytest.importorskip("tensorboardX")
    config = small_config()
    config.train.update(writers=("tensorboard",), sample_every=STEPS)
    ddpm_jax.train(config, tmp_path / "run", network=scale_network())
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    data = file.read_bytes()
    records = small_runs.metrics(tmp_path / "run")
    # A tag is written with its length before it.
    assert data.count(b"\x09grad_norm") == sum("grad_norm" in r for r in records) == 2
    assert data.count(b"\x07samples") == 1
    assert b"\x89PNG" in data


@pytest.mark.parametrize("names", [("tensorbord",), ("tensorboard", "csv")])
def test_unknown_writers_leave_no_trace(names, tmp_path):
    config = small_config()
    config.train.writers = names
    with pytest.raises(errors.Refusal, match=rf"'{names[-1]}': choose one of"):
        ddpm_jax.train(config, tmp_path / "run", network=scale_network())
    assert not (tmp_path / "run").exists()


def test_an_idle_gpu_stops_training_and_opening(workdir, tmp_path, monkeypatch):
    facts = devices.Facts("cpu", nvidia="/dev/nvidia0")
    monkeypatch.setattr(devices, "probe", lambda: facts)
    with pytest.raises(errors.Refusal, match="An NVIDIA GPU is visible"):
        ddpm_jax.train(small_config(), tmp_path / "run", network=scale_network())
    assert not (tmp_path / "run").exists()
    with pytest.raises(errors.Refusal, match="An NVIDIA GPU is visible"):
        ddpm_jax.load(workdir)


def test_a_run_says_that_its_network_is_missing(own_run, tell):
    with pytest.raises(errors.Refusal, match="network of your own"):
        ddpm_jax.load(own_run)
    with pytest.raises(errors.Refusal, match="network of your own"):
        ddpm_jax.train(small_config(), own_run)
    told = tell("--mode=sample", f"--workdir={own_run}")
    assert told.status == 1
    assert "ddpm_jax.load(" in told.err


def test_a_network_for_a_run_without_is_refused(workdir):
    with pytest.raises(errors.Refusal, match=r"leave network=… out"):
        ddpm_jax.load(workdir, network=scale_network())


def test_another_network_is_refused(own_run):
    other = ddpm_jax.network(
        lambda key: {"layers": [jnp.zeros(2)]}, lambda params, x, *rest: x
    )
    with pytest.raises(errors.Refusal, match="layers/0"):
        ddpm_jax.load(own_run, network=other)


@pytest.mark.parametrize(
    ("network", "change", "words"),
    [
        ({"channels": 2}, {}, r"float32[2, 8, 8, 2] of images"),
        ({"dtype": jnp.bfloat16}, {}, "bfloat16[2, 8, 8, 1]"),
        ({}, {"diffusion.variance": "learned"}, "it must return float32[2, 8, 8, 2]"),
        ({}, {"train.init_from": "runs/digits"}, "let init return the weights"),
    ],
)
def test_an_unfit_network_leaves_no_trace(network, change, words, tmp_path):
    config = small_config()
    config.update_from_flattened_dict(change)
    with pytest.raises(errors.Refusal, match=re.escape(words)):
        ddpm_jax.train(config, tmp_path / "run", network=scale_network(**network))
    assert not (tmp_path / "run").exists()


# ---- conditions of a network of one's own --------------------------------------------

LABEL_SPEC = {"label": ((), "int32", 10)}


def shifted(params, x, labels):
    return params["scale"] * x + params["shift"][labels][:, None, None, None]


def label_network(condition_spec=None, seen=None):
    """The input scaled and shifted by the label, by either signature of apply."""

    def of_labels(params, x, t, labels, dropout_keys):
        seen.append(labels)
        return shifted(params, x, labels)

    def of_condition(params, x, t, condition, dropout_keys):
        seen.append(condition)
        return shifted(params, x, condition["label"])

    seen = [] if seen is None else seen
    return ddpm_jax.network(
        lambda key: {"scale": jnp.ones(()), "shift": jax.random.normal(key, (11,))},
        of_labels if condition_spec is None else of_condition,
        condition_spec=condition_spec,
    )


def label_config():
    config = small_config()
    config.model.class_conditional = True
    config.train.label_dropout = 0.5
    return config


def test_labels_come_in_a_dictionary_or_alone(workdir, tmp_path):
    seen, made = {}, {}
    for name, spec in (("labels", None), ("condition", LABEL_SPEC)):
        network = label_network(spec, seen.setdefault(name, []))
        run = ddpm_jax.train(label_config(), tmp_path / name, network=network)
        made[name] = run.sample(16, labels=[3, 7], guidance_scale=2.0)
    assert all(type(given) is dict for given in seen["condition"])
    assert all(given.keys() == {"label"} for given in seen["condition"])
    labels = seen["labels"] + [given["label"] for given in seen["condition"]]
    assert len(labels) > 4
    assert {(given.dtype.name, given.ndim) for given in labels} == {("int32", 1)}
    # The same network, drop-out and guidance: the same images.
    np.testing.assert_array_equal(made["labels"], made["condition"])


def test_the_label_that_means_none_is_that_of_the_specification():
    x, t = jnp.ones((3, 2, 2, 1)), jnp.zeros(3, jnp.int32)
    network = label_network(LABEL_SPEC)
    params = {"scale": jnp.ones(()), "shift": jnp.arange(11.0)}
    given = {"label": jnp.array([4, 0, 9], jnp.int32)}
    output = network.apply(params, x, t, given)
    np.testing.assert_array_equal(output[:, 0, 0, 0], [5, 1, 10])
    nothing = conditions.without(network.condition_spec, given)
    output = network.apply(params, x, t, nothing)
    np.testing.assert_array_equal(output[:, 0, 0, 0], [11, 11, 11])


def test_the_old_signature_gets_no_labels_without_classes():
    def apply(params, x, t, labels, dropout_keys):
        assert labels is None
        assert dropout_keys is None
        return params["w"] * x

    network = ddpm_jax.network(lambda key: {"w": jnp.zeros(())}, apply)
    assert network.apply({"w": jnp.ones(())}, jnp.ones((1, 2)), jnp.zeros(1)).all()


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"label": jnp.zeros(2)},
        {"label": jnp.zeros((2, 1), jnp.int32)},
        {"label": jnp.zeros(2, jnp.int32), "caption": jnp.zeros(2, jnp.int32)},
    ],
    ids=["missing", "float", "of another rank", "unknown"],
)
def test_another_condition_than_the_specified_is_refused(condition):
    network = label_network(LABEL_SPEC)
    params = network.init(jax.random.key(0))
    with pytest.raises(errors.Refusal, match=r"'label'|'caption'"):
        network.apply(params, jnp.ones((2, 4, 4, 1)), jnp.zeros(2), condition)


@pytest.mark.parametrize(
    "entry",
    [
        3,
        "int32",
        (),
        ((),),
        ((), "int33", 10),
        ((-1,), "int32", 10),
        ((2, None, -3), "float32"),
        ((1.5,), "int32"),
        (("four",), "int32"),
        (4, "int32"),
        ((), "int32", 10, True),
    ],
    ids=repr,
)
def test_wrong_specifications_are_refused(entry):
    with pytest.raises(errors.Refusal, match=r"condition_spec\['label'\] is .*int32"):
        label_network({"label": entry})


@pytest.mark.parametrize(
    ("conditional", "spec", "words"),
    [
        (True, {}, "model.class_conditional=True with a network that reads no cond"),
        (False, LABEL_SPEC, "model.class_conditional=False with a network that reads"),
        (True, {"mask": ((8, 8, 1), "float32")}, "with a network that reads mask"),
    ],
)
def test_classes_that_contradict_the_specification(conditional, spec, words, tmp_path):
    config = label_config()
    config.model.class_conditional = conditional
    config.train.label_dropout = 0.0
    with pytest.raises(errors.Refusal, match=re.escape(words)):
        ddpm_jax.train(config, tmp_path / "run", network=label_network(spec))
    assert not (tmp_path / "run").exists()


# ---- its parameters ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (
            lambda key: {"w": jnp.zeros(3, jnp.bfloat16)},
            "w of your network is bfloat16",
        ),
        (lambda key: {"key": key}, "key of your network is key"),
        (lambda key: {}, "at least one"),
    ],
)
def test_unfit_parameters_are_refused(init, words):
    with pytest.raises(errors.Refusal, match=re.escape(words)):
        ddpm_jax.network(init, lambda *args: args[1])


def test_parameters_are_drawn_into_their_shardings():
    mesh = jax.make_mesh((8,), ("x",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    network = custom.own_network(
        lambda key: {"w": jax.random.normal(key, (16, 4))}, lambda *args: args[1]
    )
    key = jax.random.key(3)
    drawn = network.init(key, {"w": rows})["w"]
    assert drawn.sharding == rows
    np.testing.assert_array_equal(drawn, jax.random.normal(key, (16, 4)))


def test_the_newest_checkpoint_is_the_one_that_is_open(first_run):
    with pytest.raises(errors.Refusal, match="newest checkpoint"):
        ddpm_jax.load(first_run[0]).sample(1, checkpoint="best")
