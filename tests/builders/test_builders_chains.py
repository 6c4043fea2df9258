"""Runs of the 2015 paper: fields that they do not read, and the drift of points."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.builders import chains, paper_2015
from ddpm_jax.core import errors


def of_points(**diffusion):
    config = config_lib.base()
    config.model.kind, config.diffusion.num_steps = chains.GAUSSIAN, 6
    config.diffusion.update({"beta_start": 1e-3, **diffusion})
    return config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompts", ("a disc",)),
        ("negative", "a disc"),
        ("clip", False),
        ("guidance_rescale", 0.5),
        ("guidance_interval", (0.0, 0.5)),
        ("guidance_t_max", 0.5),
        ("classifier_scale", 2.0),
        ("weaker_scale", 1.5),
        ("low_res_t", 3),
        ("low_res_sigma", 0.5),
    ],
)
def test_settings_of_sampling_that_no_chain_reads_are_refused(field, value):
    config = of_points()
    facts = types.SimpleNamespace(shape=(2,), levels=None)
    config.sampling[field] = value
    with pytest.raises(errors.Refusal, match=f"sampling.{field}=.*no meaning"):
        chains.check(config, facts)


def test_the_drift_of_points_is_in_the_units_of_the_data():
    """Constant outputs z: x goes to √(1−β) s + √β z in states s = (x − m)/d."""
    mean, std, z = 0.3, 0.5, np.array([0.2, -0.4])
    own = {"data_mean": mean, "data_std": std, "learn_betas": False}
    config = of_points(**own)
    config.model.mean_form = "residual"

    def apply(params, x, t, inputs):
        del params, t, inputs
        return jnp.tile(jnp.asarray([*z, 0.0, 0.0], jnp.float32), (len(x), 1))

    points = np.array([[mean, mean], [1.0, -2.0], [0.0, 0.0]])
    network = types.SimpleNamespace(apply=apply)
    found = paper_2015.drift(config, network, {}, 3, points)
    beta = 1 / (6 - 3 * 4 / 5)  # the fourth of 1/linspace(6, 2, 6)
    state = (points - mean) / std
    wanted = std * (np.sqrt(1 - beta) * state + np.sqrt(beta) * z) + mean - points
    np.testing.assert_allclose(found, wanted, atol=1e-6)
