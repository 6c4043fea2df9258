"""The classifier's train step: against float64, on several devices, what it tells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training as small

from ddpm_jax import config as schema
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.convert import mapping, torch_reference
from ddpm_jax.convert.formats import openai
from ddpm_jax.diffusion import process
from ddpm_jax.models import functional
from ddpm_jax.training import classifier_step, progress

T, CLASSES, GROUPS = 20, small.NUM_CLASSES, 4
BETAS = np.linspace(0.01, 0.2, T)
NOISE = small.normals(small.BATCH, *small.IMAGE_SHAPE, seed=8)
RATE = 1.0  # of SGD: the step is the gradient


@functools.cache
def classifier(levels):
    """The real network, small, with random weights in every layer."""
    config = schema.base()
    config.model.update(
        kind="classifier",
        channels=8,
        channel_mult=(1, 2)[:levels],
        num_res_blocks=1,
        attention_resolutions=(8 // levels,),
        num_heads=2,
        norm_groups=GROUPS,
        resblock_updown=True,
    )
    names = tuple(str(label) for label in range(CLASSES))
    facts = build_data.DataInfo(small.IMAGE_SHAPE, 17, 100, CLASSES, names, "")
    network = build_network.network(config, facts)
    random = np.random.default_rng(0)

    def draw(shape):
        scale = 1 / np.sqrt(max(np.prod(shape.shape[:-1]), 4))
        return (scale * random.normal(size=shape.shape)).astype(np.float32)

    return network, jax.tree.map(draw, network.shapes)


def linear(params, x, t_seen, condition, *, dropout_keys=None):
    """Softmax regression with a shift by t."""
    assert condition == {}
    assert dropout_keys is None
    time = 0.1 * t_seen[:, None] * jnp.arange(CLASSES)
    return x.reshape(len(x), -1) @ params["kernel"] + params["bias"] + time


LINEAR = {
    "kernel": small.normals(small.PIXELS, CLASSES, seed=5) / 8,
    "bias": small.normals(CLASSES, seed=6),
}


def step_of(apply, optimizer, **options):
    options = {
        "draw_noise": lambda key, shape, dtype: jnp.asarray(NOISE, dtype),
        **options,
    }
    return functools.partial(
        classifier_step.train_step,
        seed=0,
        apply=apply,
        tables=process.tables(process.Schedule.from_betas(BETAS)),
        num_classes=CLASSES,
        optimizer=optimizer,
        learning_rate=lambda update: RATE,
        **options,
    )


def taken(apply, params, *, mesh_shape=(1, 1), batch=None, steps=1, **options):
    """Return the state after some steps of SGD, and the last metrics."""
    mesh, optimizer = small.make_mesh(mesh_shape), optax.sgd(RATE)
    state = small.make_state(params, optimizer=optimizer, ema_decays=(), mesh=mesh)
    step = small.on_mesh(step_of(apply, optimizer, **options), state, mesh)
    for number in range(steps):
        given = small.make_batch(seed=3 + number) if batch is None else batch
        state, metrics = step(state, small.sharding.put_batch(mesh, given))
    return small.to_numpy((state, metrics))


def noisy(batch, t):
    """Return x_t of the whole batch in float64."""
    level = np.cumprod(1 - BETAS)[t].reshape(-1, 1, 1, 1)
    return np.sqrt(level) * np.float64(batch["image"]) + np.sqrt(1 - level) * NOISE


@pytest.mark.parametrize("microbatches", [1, 4])
def test_loss_gradient_and_accuracies_equal_numpy(microbatches):
    after, metrics = taken(linear, LINEAR, microbatches=microbatches)
    batch, t = small.make_batch(), metrics["t"]
    assert len(set(t)) > 4
    before = {name: np.float64(value) for name, value in LINEAR.items()}
    x_t = noisy(batch, t).reshape(small.BATCH, -1)
    logits = x_t @ before["kernel"] + before["bias"]
    logits += 0.1 * t[:, None] * np.arange(CLASSES)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.eye(CLASSES)[batch["label"]]
    residual = (p - truth) / small.BATCH
    gradient = {"kernel": x_t.T @ residual, "bias": residual.sum(axis=0)}
    for leaf, g in gradient.items():
        np.testing.assert_allclose(after.params[leaf], before[leaf] - g, atol=2e-6)
    losses = -np.log(p[truth == 1])
    np.testing.assert_allclose(metrics["example_loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], losses.mean(), rtol=1e-5)
    rank = (logits > logits[truth == 1][:, None]).sum(axis=1)
    for name, hits in {"accuracy": rank < 1, "top5_accuracy": rank < 5}.items():
        np.testing.assert_allclose(metrics[name], hits.mean(), rtol=1e-6)
        sums = np.bincount(4 * t // T, weights=hits, minlength=4)
        np.testing.assert_array_equal(metrics[f"quarter_{name}"], sums)
    assert after.ema == {}


def test_records_tell_accuracies_by_quarter_of_t():
    _, metrics = taken(linear, LINEAR)
    watch = progress.Progress(first_step=0, last_step=1, batch_size=small.BATCH)
    watch.add(metrics | {"loss": jnp.asarray(metrics["loss"])})
    (record,) = watch.flush(1, 0.0)
    for name in ("accuracy", "top5_accuracy"):
        for quarter in range(4):
            count = metrics["quarter_count"][quarter]
            wanted = metrics[f"quarter_{name}"][quarter] / count if count else None
            assert record[f"{name}_q{quarter}"] == pytest.approx(wanted)
    assert f"accuracy {100 * record['accuracy']:.1f} %" in progress.line(record, 1)


def test_the_gradient_of_every_array_is_that_of_the_published_network():
    """The published network in PyTorch, with PyTorch's own cross-entropy."""
    torch = pytest.importorskip("torch")
    network, params = classifier(2)
    after, metrics = taken(network.apply, params)
    ours = functional.by_path(
        jax.tree.map(lambda b, a: np.float64(b) - np.float64(a), params, after.params)
    )
    before = functional.by_path(params)
    entries = openai.entries({k: v.shape for k, v in before.items()}, {})
    theirs = {}
    for entry in entries:
        for key, value in mapping.to_theirs(entry, before[entry.path]).items():
            theirs[key] = torch.tensor(value, requires_grad=True)
    batch, t = small.make_batch(), metrics["t"]
    x_t = torch.from_numpy(noisy(batch, t)).movedim(-1, 1).float()
    options = {"num_res_blocks": 1, "num_heads": 2, "groups": GROUPS}
    logits = torch_reference.openai_classifier(
        theirs, x_t, torch.from_numpy(np.array(t)), **options
    )
    label = torch.from_numpy(batch["label"]).long()
    loss = torch.nn.functional.cross_entropy(logits, label)
    loss.backward()
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    gradients = {key: value.grad.numpy() for key, value in theirs.items()}
    for entry in entries:
        wanted = mapping.to_ours(entry, gradients)
        largest = np.abs(wanted).max()
        assert largest > 0, entry.path  # no array is without effect
        difference = np.abs(ours[entry.path] - wanted).max()
        # A float32 step of a weight near 1 holds its gradient to 1e-7.
        assert difference < 1e-4 * largest + 3e-7, entry.path


def networks():
    """Parameters of a test: one that compiles in a moment, and the real one."""
    real = pytest.param(lambda: classifier(1), id="classifier", marks=pytest.mark.slow)
    return [pytest.param(lambda: (linear, LINEAR), id="linear"), real]


@pytest.mark.parametrize("parts", networks())
@pytest.mark.parametrize("mesh_shape", small.meshes([(8, 1)], [(2, 4)]))
def test_eight_devices_do_what_one_does(mesh_shape, parts):
    network, params = parts()
    apply = getattr(network, "apply", network)
    one, told = taken(apply, params)
    other, also = taken(apply, params, mesh_shape=mesh_shape)
    np.testing.assert_array_equal(told["t"], also["t"])
    np.testing.assert_array_equal(told["quarter_accuracy"], also["quarter_accuracy"])
    assert small.largest_difference(one.params, other.params) < 2e-5


def test_dropout_draws_by_place_in_the_batch_and_microbatches_change_nothing():
    def dropping(params, x, t_seen, condition, *, dropout_keys):
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.7, (small.PIXELS,)))
        x = jnp.where(keep(dropout_keys), x.reshape(len(x), -1), 0)
        return linear(params, x, t_seen, condition)

    whole, told = taken(dropping, LINEAR, dropout=True)
    parts, _ = taken(dropping, LINEAR, dropout=True, microbatches=4)
    none, _ = taken(linear, LINEAR)
    assert small.largest_difference(whole.params, parts.params) < 1e-6
    assert small.largest_difference(whole.params, none.params) > 1e-3
    assert told["finite"]


def test_a_batch_that_is_not_finite_is_left_out():
    batch = small.make_batch()
    batch["image"][5, 0, 0] = np.nan
    after, metrics = taken(linear, LINEAR, batch=batch)
    assert not metrics["finite"]
    small.assert_same_bits(after.params, LINEAR)
    assert (int(after.step), int(after.skipped)) == (1, 1)
