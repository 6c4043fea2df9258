"""Every prediction with every variance and hook against the float64 reference."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import process as ref_process
from reference import reverse as ref_reverse

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, respacing, reverse, schedules

PREDICTIONS = ("noise", "x_0", "x_prev", "v")
VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range")
HOOKS = {
    "none": ((), None),
    "clip": ((reverse.clipping(-1, 1),), ref_reverse.clip),
    "threshold": (
        (reverse.dynamic_thresholding(0.9, 1.7),),
        lambda x_0: ref_reverse.dynamic_threshold(x_0, 0.9, 1.7),
    ),
}


def pair(name="linear", num_steps=200, floor="next", **options):
    betas = schedules.make_betas(name, num_steps, **options)
    schedule = process.Schedule.from_betas(betas, log_var_floor=floor)
    reference = ref_process.Process(betas, log_var_floor=floor)
    return process.tables(schedule), reference


def random_case(shape, t, channels, seed=0):
    """x_t and an output of the size that networks have."""
    rng = np.random.default_rng(seed)
    x_t = rng.normal(size=shape).astype(np.float32)
    output = rng.normal(size=(*shape[:-1], channels)).astype(np.float32)
    return x_t, jnp.asarray(output), np.asarray(t, np.int32)


def close(value, expected, name):
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_combination(prediction, variance, hook):
    floor = "1e-20" if hook == "clip" else "next"
    tables, reference = pair(floor=floor)
    channels = 6 if variance.startswith("learned") else 3
    x_t, output, t = random_case((5, 4, 2, 3), [0, 1, 60, 198, 199], channels)
    hooks, expected_hook = HOOKS[hook]
    denoise = reverse.denoiser(
        tables,
        lambda x, _: output,
        prediction=prediction,
        variance=variance,
        x_0_hooks=hooks,
    )
    p = denoise(x_t, t)
    expected = ref_reverse.reverse(
        reference,
        np.asarray(output, np.float64),
        x_t.astype(np.float64),
        t,
        prediction=prediction,
        variance=variance,
        hook=expected_hook,
    )
    for name in ("x_0", "noise", "mean", "variance", "log_var"):
        value = getattr(p, name)
        assert value.shape == x_t.shape
        assert value.dtype == jnp.float32
        close(value, getattr(expected, name), name)


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 6, 1), (4, 2, 3, 4, 2)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_fields_agree_with_each_other(prediction, shape):
    tables, reference = pair("cosine", 30)
    x_t, output, t = random_case(shape, [0, 3, 20, 28], 2 * shape[-1])
    p = reverse.denoiser(
        tables,
        lambda x, _: output,
        prediction=prediction,
        variance="learned_range",
        x_0_hooks=(reverse.clipping(-0.5, 0.75),),
    )(x_t, t)
    assert float(jnp.max(p.x_0)) <= 0.75
    assert float(jnp.min(p.x_0)) >= -0.5
    close(process.q_sample(tables, p.x_0, t, p.noise), x_t, "x_t")
    np.testing.assert_allclose(p.variance, np.exp(p.log_var), rtol=1e-6)
    mean = reference.posterior(np.asarray(p.x_0), x_t, t)[0]
    if prediction == "x_prev":
        np.testing.assert_array_equal(p.mean, output[..., : shape[-1]])
    else:
        close(p.mean, mean, "mean")


def test_the_two_numbers_of_the_first_step_are_not_logarithms_of_each_other():
    tables, reference = pair("linear", 100)
    x_t, output, t = random_case((1, 2), [0], 2)
    first = reference.posterior_var[1]
    for variance, expected in (("fixed_small", 0.0), ("fixed_large", first)):
        p = reverse.denoiser(
            tables, lambda x, _: output, prediction="noise", variance=variance
        )(x_t, t)
        close(p.log_var, np.full((1, 2), np.log(first)), variance)
        np.testing.assert_allclose(p.variance, np.full((1, 2), expected), rtol=1e-6)


def test_learned_range_is_unbounded():
    tables, reference = pair("linear", 100)
    low, high = reference.posterior_log_var[40], np.log(reference.beta[40])
    for value, expected in ((3.0, 2 * high - low), (-3.0, 2 * low - high)):
        p = reverse.denoiser(
            tables,
            lambda x, _, value=value: jnp.full((1, 2), value),
            prediction="x_0",
            variance="learned_range",
        )(jnp.zeros((1, 1)), jnp.array([40]))
        assert float(p.log_var[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_hooks_run_in_order_and_see_the_noisy_image():
    tables, _ = pair("cosine", 30)
    x_t, output, t = random_case((2, 3), [5, 20], 3)
    seen = []

    def overwrite(x_0, x_in, t_in):
        seen.append((x_in, t_in))
        return x_0.at[:, 0].set(7.0)

    p = reverse.denoiser(
        tables,
        lambda x, _: output,
        prediction="x_0",
        variance="fixed_small",
        x_0_hooks=(overwrite, reverse.clipping(-1, 1)),
    )(x_t, t)
    np.testing.assert_array_equal(seen[0][0], x_t)
    np.testing.assert_array_equal(seen[0][1], t)
    np.testing.assert_array_equal(p.x_0[:, 0], [1.0, 1.0])  # clipping came last


def test_threshold_with_maximum_one_is_clipping():
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(3, 50)) * 2, jnp.float32)
    t = jnp.zeros(3, jnp.int32)
    np.testing.assert_allclose(
        reverse.dynamic_thresholding(0.995, 1.0)(x_0, x_0, t),
        reverse.clipping(-1, 1)(x_0, x_0, t),
        rtol=1e-6,
    )


def test_threshold_leaves_small_images_alone():
    x_0 = jnp.asarray([[0.2, -0.9, 0.5]], jnp.float32)
    hook = reverse.dynamic_thresholding(0.995, 3.0)
    np.testing.assert_array_equal(hook(x_0, x_0, jnp.zeros(1, jnp.int32)), x_0)


def test_v_without_signal():
    tables, _ = pair("linear", 50, zero_terminal_snr=True)
    x_t, output, t = random_case((2, 3), [49, 49], 3)
    p = reverse.denoiser(
        tables, lambda x, _: output, prediction="v", variance="fixed_small"
    )(x_t, t)
    np.testing.assert_array_equal(p.x_0, -output)
    np.testing.assert_array_equal(p.noise, x_t)
    chex.assert_tree_all_finite(p)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_jit_and_no_jit(prediction):
    tables, _ = pair("cosine", 30)
    x_t, output, t = random_case((4, 3), [0, 3, 20, 28], 6)
    denoise = reverse.denoiser(
        tables, lambda x, _: output, prediction=prediction, variance="learned"
    )
    chex.assert_trees_all_close(
        denoise(x_t, t), jax.jit(denoise)(x_t, t), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "num_steps", "options"),
    [
        ("jsd", 30, {}),
        ("linear", 20, {}),
        ("cosine", 30, {"zero_terminal_snr": True}),
    ],
)
def test_noise_prediction_without_signal_is_refused(name, num_steps, options):
    tables, _ = pair(name, num_steps, **options)
    with pytest.raises(errors.Refusal, match="noise") as caught:
        reverse.denoiser(
            tables, lambda x, _: x, prediction="noise", variance="fixed_small"
        )
    assert "'v'" in str(caught.value)
    for prediction in ("v", "x_0", "x_prev"):
        reverse.denoiser(
            tables, lambda x, _: x, prediction=prediction, variance="fixed_small"
        )


def test_a_respacing_that_drops_the_last_step_keeps_noise_prediction():
    schedule = process.Schedule.from_betas(schedules.make_betas("jsd", 30))
    tables = process.tables(respacing.respace(schedule, "ddim10"))
    reverse.denoiser(tables, lambda x, _: x, prediction="noise", variance="fixed_small")


@pytest.mark.parametrize(
    ("prediction", "variance", "parts"),
    [
        ("epsilon", "fixed_small", ["epsilon", "noise", "x_prev"]),
        ("noise", "fixed", ["fixed", "fixed_small", "learned_range"]),
    ],
)
def test_unknown_names_are_refused(prediction, variance, parts):
    tables, _ = pair()
    with pytest.raises(errors.Refusal) as caught:
        reverse.denoiser(
            tables, lambda x, _: x, prediction=prediction, variance=variance
        )
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("variance", "channels"),
    [("learned", 3), ("learned_range", 3), ("fixed_small", 6), ("learned", 5)],
)
def test_an_output_of_the_wrong_width_is_refused(variance, channels):
    tables, _ = pair()
    x_t, output, t = random_case((2, 3), [0, 1], channels)
    denoise = reverse.denoiser(
        tables, lambda x, _: output, prediction="noise", variance=variance
    )
    with pytest.raises(errors.Refusal, match=variance):
        denoise(x_t, t)


@pytest.mark.parametrize(("percentile", "maximum"), [(0, 2), (1.1, 2), (0.9, 0.5)])
def test_impossible_thresholds_are_refused(percentile, maximum):
    with pytest.raises(errors.Refusal):
        reverse.dynamic_thresholding(percentile, maximum)


def test_impossible_clipping_is_refused():
    with pytest.raises(errors.Refusal):
        reverse.clipping(1, -1)
