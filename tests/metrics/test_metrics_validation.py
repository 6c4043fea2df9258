"""The validation loss against float64, and its independence of batches and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import process, schedules
from ddpm_jax.metrics import validation
from ddpm_jax.runtime import sharding

SHAPE, NUM_STEPS, SEED, NUM_IMAGES, PER_IMAGE = (3, 5, 2), 40, 11, 7, 8
BETAS = schedules.make_betas("cosine", NUM_STEPS)
OBJECTIVE = {"prediction": "noise", "variance": "fixed_small", "loss": "simple"}
RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.uniform(-1, 1, (NUM_IMAGES, *SHAPE)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, NUM_IMAGES).astype(np.int32)
CONDITION = {"label": LABELS}
PARAMS = {"scale": np.float32(0.6), "shift": np.array([0.3, -0.1, 0.0], np.float32)}


def network(params, x, t_seen, condition, xp=jnp):
    """A noise prediction that depends on everything it is given."""
    shift = 0
    if condition:
        shift = params["shift"][condition["label"]].reshape(-1, 1, 1, 1)
    time = 0.01 * xp.asarray(t_seen).reshape(-1, 1, 1, 1)
    return params["scale"] * x + shift + time


def silent(params, x, t_seen, condition):
    """Predicts no noise at all."""
    return 0 * x


def make(apply=network, mesh_shape=(1, 1), batch_size=16, **changes):
    devices = jax.devices()[: mesh_shape[0] * mesh_shape[1]]
    mesh = sharding.make_mesh(*mesh_shape, devices=devices)
    options = {"images": IMAGES, "condition": CONDITION, "seed": SEED, **changes}
    objective = options.pop("objective", OBJECTIVE)
    options.setdefault("timesteps_per_image", PER_IMAGE)
    schedule = process.Schedule.from_betas(options.pop("betas", BETAS))
    validate = validation.make_validator(
        schedule, apply, objective, mesh=mesh, batch_size=batch_size, **options
    )
    return lambda params=PARAMS: validate(
        jax.device_put(params, sharding.replicated(mesh))
    )


@functools.cache
def noise(seed=SEED):
    """float64 [PER_IMAGE, NUM_IMAGES, *SHAPE]: one draw for each image and part."""
    stream = keys.key_for(seed, "validate/noise", index=np.arange(NUM_IMAGES))
    draws = [
        keys.normal_each(keys.fold_in_each(stream, part), SHAPE)
        for part in range(PER_IMAGE)
    ]
    return np.float64(draws)


def truth(condition=CONDITION):
    """E‖ε − ε_θ(√ᾱ x_0 + √(1−ᾱ) ε, t)‖² for every pair, DDPM eq. 14, in float64."""
    alpha_bar = np.cumprod(1 - np.asarray(BETAS, np.float64))
    fixed = validation.pairs(NUM_IMAGES, PER_IMAGE, NUM_STEPS)
    draw = noise()[fixed.part, fixed.image]
    level = alpha_bar[fixed.t].reshape(-1, 1, 1, 1)
    x_t = np.sqrt(level) * np.float64(IMAGES)[fixed.image] + np.sqrt(1 - level) * draw
    params = {name: np.float64(value) for name, value in PARAMS.items()}
    given = {key: values[fixed.image] for key, values in condition.items()}
    error = draw - network(params, x_t, fixed.t, given, xp=np)
    return fixed, (error**2).mean(axis=(1, 2, 3))


def check(result, fixed, mse):
    close = functools.partial(pytest.approx, rel=1e-5)
    assert result["validation_loss"] == close(mse.mean())
    for q in range(4):
        inside = (fixed.t >= q * NUM_STEPS / 4) & (fixed.t < (q + 1) * NUM_STEPS / 4)
        assert result[f"validation_loss_q{q}"] == close(mse[inside].mean())
    by_part = [mse[fixed.part == part].mean() for part in range(PER_IMAGE)]
    assert result["validation_mse_by_t"] == close(by_part)
    assert result["t"] == close(
        [fixed.t[fixed.part == part].mean() for part in range(PER_IMAGE)]
    )


# ---- values --------------------------------------------------------------------------


def test_result_equals_float64():
    check(make()(), *truth())


def test_unconditional_networks_get_no_labels():
    check(make(condition={})(), *truth(condition={}))


def test_predicting_no_noise_costs_the_mean_square_of_the_noise():
    result = make(silent)()
    assert result["validation_loss"] == pytest.approx((noise() ** 2).mean(), rel=1e-6)


def test_the_loss_is_that_of_the_objective():
    """x_0 prediction at min-SNR weight: min(SNR, γ)·‖x_0‖² where x̂_0 is 0."""
    objective = {**OBJECTIVE, "prediction": "x_0", "weighting": "min_snr", "gamma": 2.0}
    result = make(silent, objective=objective)()
    alpha_bar = np.cumprod(1 - np.asarray(BETAS, np.float64))
    fixed = validation.pairs(NUM_IMAGES, PER_IMAGE, NUM_STEPS)
    square = (np.float64(IMAGES)[fixed.image] ** 2).mean(axis=(1, 2, 3))
    weight = np.minimum((alpha_bar / (1 - alpha_bar))[fixed.t], 2.0)
    assert result["validation_loss"] == pytest.approx((weight * square).mean(), 1e-5)
    by_part = [square[fixed.part == part].mean() for part in range(PER_IMAGE)]
    assert result["validation_mse_by_t"] == pytest.approx(by_part, rel=1e-5)


@pytest.mark.parametrize(
    ("mesh_shape", "batch_size"), [((1, 1), 5), ((1, 1), 100), ((8, 1), 16)]
)
def test_batches_and_devices_change_nothing(mesh_shape, batch_size):
    result = make(mesh_shape=mesh_shape, batch_size=batch_size)()
    check(result, *truth())


def test_parameters_split_over_devices_change_nothing():
    check(make(mesh_shape=(2, 4), batch_size=8)(), *truth())


def test_the_same_value_every_time_and_another_of_another_seed():
    validate = make()
    assert validate() == validate()
    other = make(seed=SEED + 1)()
    assert other["validation_loss"] != validate()["validation_loss"]


def test_it_follows_the_parameters_and_compiles_once():
    traces = []

    def counted(params, x, t_seen, condition):
        traces.append(x.shape)
        return network(params, x, t_seen, condition)

    validate = make(counted)
    first = validate()
    second = validate({**PARAMS, "scale": np.float32(0.1)})
    assert first["validation_loss"] != second["validation_loss"]
    assert traces == [(16, *SHAPE)]


# ---- the timesteps -------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [4, 40, 1000])
@pytest.mark.parametrize("num_images", [1, 7, 50])
def test_timesteps_cover_the_process_evenly(num_images, num_steps):
    fixed = validation.pairs(num_images, 8, num_steps)
    count = num_images * 8
    assert fixed.t.min() >= 0
    assert fixed.t.max() < num_steps
    # The k-th of n·k sorted timesteps is the middle of the k-th of n·k equal parts.
    middles = (np.arange(count) + 0.5) / count * num_steps
    np.testing.assert_array_equal(np.sort(fixed.t), np.floor(middles))
    for image in range(num_images):
        t = fixed.t[fixed.image == image]
        assert np.all(t >= np.floor(np.arange(8) * num_steps / 8))
        assert np.all(t < np.ceil(np.arange(1, 9) * num_steps / 8))


def test_neighbours_do_not_share_their_noise_levels():
    """Of 8 multiples of the golden ratio no gap is wider than φ⁻⁴ = 0.146 < ¼."""
    t = validation.pairs(100, 1, 1000).t
    for start in range(92):
        assert set(t[start : start + 8] // 250) == {0, 1, 2, 3}


def test_a_quarter_without_timesteps_has_no_value():
    result = make(betas=BETAS[:2])()
    assert result["validation_loss_q1"] is None
    assert result["validation_loss_q0"] is not None


# ---- refusals ------------------------------------------------------------------------


def test_no_images_are_refused():
    with pytest.raises(errors.Refusal, match=r"data\.test_fraction.*validate_every=0"):
        make(images=IMAGES[:0], condition={"label": LABELS[:0]})


def test_a_batch_that_devices_cannot_share_is_refused():
    with pytest.raises(errors.Refusal, match=r"8 devices: use 8 or 16"):
        make(mesh_shape=(8, 1), batch_size=12)


def test_labels_belong_to_images():
    with pytest.raises(ValueError, match="6 of 'label' for 7 images"):
        make(condition={"label": LABELS[:-1]})
