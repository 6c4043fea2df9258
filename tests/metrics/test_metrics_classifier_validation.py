"""What a classifier's validation tells, against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import process, schedules
from ddpm_jax.metrics import classifier_validation, validation
from ddpm_jax.runtime import sharding

SHAPE, CLASSES, NUM_STEPS, SEED, PER_IMAGE = (3, 4, 2), 6, 40, 11, 4
BETAS = schedules.make_betas("cosine", NUM_STEPS)
RANDOM = np.random.default_rng(3)
PARAMS = RANDOM.normal(size=(24, CLASSES)).astype(np.float32) / 4


def split(count):
    images = RANDOM.uniform(-1, 1, (count, *SHAPE)).astype(np.float32)
    return images, RANDOM.integers(0, CLASSES, count).astype(np.int32)


SPLITS = {"validation": split(7), "training_images": split(9)}


def apply(params, x, t_seen, condition, xp=jnp):
    assert not condition
    time = 0.02 * xp.asarray(t_seen)[:, None] * xp.arange(CLASSES)
    return x.reshape(len(x), -1) @ params + time


@functools.cache
def told(batch_size=16, devices=1):
    mesh = sharding.make_mesh(devices, 1, devices=jax.devices()[:devices])
    validate = classifier_validation.make_validator(
        process.Schedule.from_betas(BETAS),
        apply,
        SPLITS,
        seed=SEED,
        mesh=mesh,
        batch_size=batch_size,
    )
    return validate(jax.device_put(PARAMS, sharding.replicated(mesh)))


def truth(number, images, label):
    """Loss and hits of every pair in float64, and the t of each."""
    fixed = validation.pairs(len(images), PER_IMAGE, NUM_STEPS)
    stream = keys.key_for(SEED, "validate/noise", index=fixed.image)
    stream = keys.fold_in_each(keys.fold_in_each(stream, fixed.part), number)
    noise = np.float64(keys.normal_each(stream, SHAPE))
    level = np.cumprod(1 - np.float64(BETAS))[fixed.t].reshape(-1, 1, 1, 1)
    x_t = np.sqrt(level) * np.float64(images)[fixed.image] + np.sqrt(1 - level) * noise
    logits = apply(np.float64(PARAMS), x_t, fixed.t, {}, xp=np)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    named = label[fixed.image]
    rank = (logits > logits[np.arange(len(named)), named][:, None]).sum(axis=1)
    loss = -log_p[np.arange(len(named)), named]
    return {"loss": loss, "accuracy": rank < 1, "top5_accuracy": rank < 5}, fixed.t


@pytest.mark.parametrize("number", range(2))
def test_loss_and_accuracy_are_those_of_float64_by_quarter_of_t(number):
    name, (images, label) = list(SPLITS.items())[number]
    terms, t = truth(number, images, label)
    close = functools.partial(pytest.approx, rel=1e-5)
    for term, values in terms.items():
        assert told()[f"{name}_{term}"] == close(values.mean())
        for quarter in range(4):
            member = values[4 * t // NUM_STEPS == quarter]
            assert told()[f"{name}_{term}_q{quarter}"] == close(member.mean())


@pytest.mark.parametrize(("batch_size", "devices"), [(5, 1), (8, 8)])
def test_no_batch_size_and_no_number_of_devices_changes_a_value(batch_size, devices):
    assert told(batch_size, devices) == pytest.approx(told(), rel=1e-6)


def test_no_images_are_refused():
    empty = np.zeros((0, *SHAPE), np.float32), np.zeros(0, np.int32)
    mesh = sharding.make_mesh(1, 1, devices=jax.devices()[:1])
    with pytest.raises(errors.Refusal, match="no test images"):
        classifier_validation.make_validator(
            process.Schedule.from_betas(BETAS),
            apply,
            {"validation": empty},
            seed=0,
            mesh=mesh,
            batch_size=1,
        )
