"""A second kind of train step against NumPy: what `update` gives to all kinds."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_training as small
import softmax_step

from ddpm_jax.diffusion import process, timesteps
from ddpm_jax.training import progress, update

T, CLASSES, RATE, EPSILON = 20, small.NUM_CLASSES, 0.5, 1e-2
BETAS = np.linspace(0.01, 0.2, T)
NOISE = small.normals(small.BATCH, *small.IMAGE_SHAPE, seed=8)
OPTIMIZERS = {
    "sgd": optax.sgd(RATE),
    # Its first update is −RATE · g / (|g| + ε): as smooth as ε is large. float32 holds
    # the bias correction 1 − b2 to 1e-5 only at the usual 0.999.
    "adam": optax.adam(RATE, b2=0.75, eps=EPSILON),
}


class Lopsided:
    """Timesteps whose weights are known, and a state that keeps what it is told."""

    def init(self):
        return {"t": jnp.zeros(small.BATCH, jnp.int32), "loss": jnp.zeros(small.BATCH)}

    def sample(self, state, key, n):
        del state
        t, _ = timesteps.uniform(T).sample((), key, n)
        return t, (1 + t) / 10

    def update(self, state, t, loss):
        del state
        return {"t": t, "loss": loss}


def uncompiled(name, microbatches):
    """A state and a step."""
    optimizer, sampler = OPTIMIZERS[name], Lopsided()
    params = {
        "kernel": small.normals(small.PIXELS, CLASSES, seed=5) / 8,
        "bias": small.normals(CLASSES, seed=6),
    }
    step = functools.partial(
        softmax_step.train_step,
        seed=0,
        tables=process.tables(process.Schedule.from_betas(BETAS)),
        timestep_sampler=sampler,
        draw_noise=lambda key, shape, dtype: jnp.asarray(NOISE, dtype),
        optimizer=optimizer,
        learning_rate=lambda update: RATE,
        microbatches=microbatches,
    )
    state = small.make_state(
        params, optimizer=optimizer, sampler=sampler, ema_decays=(0.9,)
    )
    return state, step


@functools.cache
def prepared(name, microbatches):
    """A state and a compiled step."""
    state, step = uncompiled(name, microbatches)
    return state, small.compiled(step)


def cross_entropy(params, batch, t):
    """Return losses [B], hits [B] and the gradient of mean((1 + t)/10 · loss)."""
    alpha_bar = np.cumprod(1 - BETAS)[t][:, None]
    pixels = np.float64(batch["image"]).reshape(small.BATCH, -1)
    x_t = np.sqrt(alpha_bar) * pixels
    x_t += np.sqrt(1 - alpha_bar) * np.float64(NOISE).reshape(small.BATCH, -1)
    logits = x_t @ params["kernel"] + params["bias"]
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    truth = np.eye(CLASSES)[batch["label"]]
    residual = (p - truth) * ((1 + t) / 10)[:, None] / small.BATCH
    gradient = {"kernel": x_t.T @ residual, "bias": residual.sum(axis=0)}
    hits = logits.argmax(axis=1) == batch["label"]
    return -np.log(p[truth == 1]), hits, gradient


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_equals_numpy(name, microbatches):
    state, step = prepared(name, microbatches)
    batch = small.make_batch()
    after, metrics = small.to_numpy(step(state, batch))
    t = metrics["t"]
    assert len(set(t)) > 4
    before = {k: np.float64(v) for k, v in state.params.items()}
    losses, hits, gradient = cross_entropy(before, batch, t)

    for leaf, g in gradient.items():
        moved = g if name == "sgd" else g / (np.abs(g) + EPSILON)
        wanted = before[leaf] - RATE * moved
        np.testing.assert_allclose(after.params[leaf], wanted, atol=2e-6)
        # The ramp's first decay is 1/10.
        ema = 0.1 * before[leaf] + 0.9 * wanted
        np.testing.assert_allclose(after.ema["0.9"][leaf], ema, atol=2e-6)
    assert (int(after.step), int(after.skipped)) == (1, 0)

    np.testing.assert_array_equal(after.timesteps["t"], t)
    np.testing.assert_allclose(after.timesteps["loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(metrics["example_loss"], losses, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean((1 + t) / 10 * losses), 1e-5)
    np.testing.assert_allclose(metrics["accuracy"], hits.mean(), rtol=1e-6)
    norms = [np.linalg.norm(gradient[leaf]) for leaf in ("bias", "kernel")]
    np.testing.assert_allclose(metrics["block_norms"], norms, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.hypot(*norms), rtol=1e-5)
    np.testing.assert_array_equal(
        metrics["quarter_count"], np.bincount(t // 5, minlength=4)
    )
    assert metrics["finite"]


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_batch_that_is_not_finite_is_left_out(microbatches):
    state, step = prepared("adam", microbatches)
    state, _ = step(state, small.make_batch())
    batch = small.make_batch(seed=4)
    batch["image"][5, 0, 0] = np.nan
    after, metrics = step(state, batch)
    assert not metrics["finite"]
    assert np.isnan(metrics["example_loss"]).sum() == 1
    assert (int(after.step), int(after.skipped)) == (2, 1)
    small.assert_same_bits(after.replace(step=state.step, skipped=state.skipped), state)


def test_it_reports_its_own_metrics():
    """The means of its terms stand in its records, and no other kind's do."""
    state, step = prepared("sgd", 2)
    watch = progress.Progress(first_step=0, last_step=3, batch_size=small.BATCH)
    accuracies = []
    for number in range(3):
        state, metrics = step(state, small.make_batch(seed=number))
        assert metrics.keys() == {*update.COMMON, "accuracy"}
        watch.add(metrics)
        accuracies.append(float(metrics["accuracy"]))
    assert len(set(accuracies)) > 1
    (record,) = watch.flush(3, 0.0)
    assert record["accuracy"] == pytest.approx(np.mean(accuracies), rel=1e-6)
    assert not record.keys() & {"mse", "vb"}
    assert "loss" in progress.line(record, 3)


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize("name", [n for n in update.COMMON if n != "loss"])
def test_a_term_named_like_a_common_metric_is_refused(monkeypatch, name, microbatches):
    def renamed(state, examples, loss_terms, **tail):
        def terms(params, part):
            loss, accuracy = loss_terms(params, part).values()
            return {"loss": loss, name: accuracy}

        return update_state(state, examples, terms, **tail)

    update_state = update.update_state
    monkeypatch.setattr(update, "update_state", renamed)
    state, step = uncompiled("sgd", microbatches)
    with pytest.raises(ValueError, match=f"{name!r} has the name of a common metric"):
        jax.eval_shape(step, state, small.make_batch())


def test_a_kind_of_step_is_short():
    assert len(inspect.getsource(softmax_step).splitlines()) < 80
