"""Solvers of second order against those of `diffusers`, on the same timesteps.

`diffusers` takes √((1−ᾱ)/ᾱ) in float32, from betas in float32; that is the tolerance.
Its own spacings round to other timesteps than ours, so the timesteps are given to it.
"""

import mixture
import numpy as np
import pytest
from test_diffusion_higher_order import chain, make, whole

from ddpm_jax.diffusion import respacing

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

OPTIONS = {
    "num_train_timesteps": 1000,
    "trained_betas": np.asarray(whole().betas, np.float32),
    "prediction_type": "epsilon",
}


def noise(x, alpha_bar):
    rest = x - np.sqrt(alpha_bar) * mixture.x_0(x, alpha_bar)
    return rest / np.sqrt(1 - alpha_bar)


def scheduler(name):
    if name == "heun":
        return diffusers.HeunDiscreteScheduler(**OPTIONS)
    return diffusers.DPMSolverMultistepScheduler(
        **OPTIONS, algorithm_type="dpmsolver++", solver_order=2
    )


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize(
    ("name", "spacing"), [("heun", "even"), ("dpmpp_2m", "logsnr")]
)
def test_whole_chains_are_those_of_diffusers(name, spacing, steps):
    kept = respacing.respace(whole(), steps, spacing)
    theirs = scheduler(name)
    theirs.set_timesteps(timesteps=list(kept.timesteps[::-1]))
    x_T, alpha_bar = mixture.starts(64), whole().alpha_bar
    x = torch.from_numpy(x_T)
    if name == "heun":  # its state is x/√ᾱ
        x = x / np.sqrt(alpha_bar[-1])
    for t in theirs.timesteps:
        seen = theirs.scale_model_input(x, t).numpy()
        x = theirs.step(torch.from_numpy(noise(seen, alpha_bar[int(t)])), t, x)
        x = x.prev_sample
    made = chain(kept, make(name), x_T, prediction="noise")
    np.testing.assert_allclose(made, x.numpy(), atol=1e-3)
