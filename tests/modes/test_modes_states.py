"""Runs whose examples are no images, and of 16 bits: trained, sampled, resumed."""

import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from PIL import Image

import ddpm_jax
from ddpm_jax import config as config_lib
from ddpm_jax.builders import sample_pictures, trained_run
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.data import sources
from ddpm_jax.evaluation import image_sets
from ddpm_jax.modes import diagnose
from ddpm_jax.sampling import generation, sampler

STEPS = 4
KINDS = {
    "points": ((2,), None, np.float32),
    "sequences": ((20, 1), None, np.float32),
    "deep": ((8, 8, 1), 2**16, np.uint16),
}


def scale_network():
    """One number times the input, plus one number."""
    return ddpm_jax.network(
        lambda key: {"scale": jnp.float32(0.5), "shift": jnp.zeros(())},
        lambda params, x, t, labels, dropout_keys: (
            params["scale"] * x + params["shift"]
        ),
    )


def config_for(name):
    config = config_lib.base()
    config.data.name = name
    config.diffusion.update(num_steps=small_runs.T, prediction="x_0")
    config.train.update(steps=STEPS, batch_size=16, sample_every=2, validate_every=2)
    config.train.update(ema_decay=(0.5,), log_every=2, checkpoint_every=2)
    config.sampling.update(steps=3, batch_size=4, clip=False)
    return config


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    shape, levels, _ = KINDS[request.param]

    def source(split, _):
        values = np.random.default_rng(0).uniform(-1, 1, (64, *shape))
        values = values.astype(np.float32)
        return sources.Dataset(
            name=request.param,
            split=split,
            shape=shape,
            levels=levels,
            num_classes=None,
            class_names=(),
            num_examples=len(values),
            read=lambda i: (values[i], np.zeros(len(i), np.int32)),
        )

    monkeypatch.setitem(sources.SOURCES, request.param, source)
    return request.param


def open_store(folder, request):
    """Return a run's samples, as --mode=sample and the metrics find them."""
    trained = trained_run.open_run(folder, network=scale_network())
    weights = trained.weights("auto", field="")
    recipe = build_sampling.recipe(trained.config, trained.facts)
    made_by = sampler.Sampler(recipe, trained.network, trained.mesh)
    store = generation.open_store(folder / "samples" / request, recipe, weights)

    def make(wanted):
        assert generation.generate_until(
            store, made_by, weights, wanted, batch_size=4, levels=trained.facts.levels
        )
        with np.load(store.archive) as arrays:
            return arrays["arr_0"]

    return store, make


def test_from_training_to_samples(kind, tmp_path, capsys):
    shape, levels, dtype = KINDS[kind]
    config, folder = config_for(kind), tmp_path / "run"
    config.train.steps = 2
    ddpm_jax.train(config, folder, network=scale_network())
    config.train.steps = STEPS
    run = ddpm_jax.train(config, folder, network=scale_network())  # goes on
    said = capsys.readouterr().out
    is_image = images_lib.is_image(shape)
    assert f"64 images {'x'.join(map(str, shape))}, {levels or 'continuous'}" in said
    assert said.count("plot of samples: ") == 2 * (not is_image)
    with Image.open(folder / "samples" / f"step_{STEPS}.png") as picture:
        assert min(picture.size) > 8
    records = small_runs.metrics(folder)
    assert sum("sample_channel_mean" in record for record in records) == 2
    ddpm_jax.train(config, folder, network=scale_network())  # and misses nothing
    assert "4 steps already" in capsys.readouterr().out
    assert (folder / "report.html").exists()

    made = run.sample(10, batch_size=4)
    assert (made.dtype, made.shape) == (dtype, (10, *shape))
    assert len(np.unique(made)) > 10
    store, make = open_store(folder, "x")
    assert make(6).tobytes() == made[:6].tobytes()
    assert make(10).tobytes() == made.tobytes()
    capsys.readouterr()
    sample_pictures.write_grid(store, 10, None)
    assert f"grid:    {store.folder / 'grid.png'}" in capsys.readouterr().out
    with Image.open(store.folder / "grid.png") as picture:
        assert min(picture.size) > 8
    if not is_image:
        run_config = trained_run.read(folder).config
        with pytest.raises(errors.Refusal, match="--mode=diagnose: one example"):
            diagnose.run(run_config, folder)


@pytest.mark.parametrize("kind", ["deep"], indirect=True)
def test_sixteen_bits_go_on_with_eight_where_they_began_so(kind, tmp_path):
    run = ddpm_jax.train(config_for(kind), tmp_path / "run", network=scale_network())
    store, make = open_store(tmp_path / "run", "x")
    made = run.sample(8, batch_size=4)
    x = images_lib.from_stored(made)
    store.add(0, images_lib.to_uint8(x[:3]))  # as older versions did
    found = make(8)
    assert found.dtype == np.uint8
    # The network's own values are rounded once, these twice.
    assert np.abs(found.astype(int) - images_lib.shown(made)).max() <= 1


def test_metrics_see_eight_bits_of_sixteen(tmp_path, capsys):
    grey = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3))
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=(grey * 257).astype(np.uint16))
    found = image_sets.of_path(str(path), "x")
    np.testing.assert_array_equal(np.concatenate(list(found.rows(5))), grey)
    assert "16 bits, of which metrics see 8" in capsys.readouterr().out
    np.savez(path, arr_0=grey.astype(np.uint16))  # bytes in a wider type: no 16 bits
    with pytest.raises(errors.Refusal, match=r"uint16 .*metrics read uint8"):
        image_sets.of_path(str(path), "x")
