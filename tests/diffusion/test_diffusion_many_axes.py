"""Arrays of 7 and 8 axes: the same numbers as of the flat ones, and no crash.

jaxlib 0.10.2 crashes in fused sums of arrays with so many axes. A crash takes its
process with it, so another one computes.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = """
import sys
import jax, numpy as np
from ddpm_jax.diffusion import likelihood, losses, process, reverse, samplers, schedules
from ddpm_jax.diffusion import respacing, solvers

shape = (3, 1, 2, 2, 4, 2, 2, 3)[: int(sys.argv[1])]
flat = (3, int(np.prod(shape[1:-1])), shape[-1])
tables = process.tables(
    process.Schedule.from_betas(schedules.make_betas("cosine", 20)))
rng = np.random.default_rng(0)
x_0 = rng.choice(np.linspace(-1, 1, 256), size=flat).astype(np.float32)
noise, x_T = rng.standard_normal((2, *flat)).astype(np.float32)
t = np.array([0, 7, 19])


def all_of(shape):
    x, e, z = (v.reshape(shape) for v in (x_0, noise, x_T))
    network = lambda x_t, t: 0.1 * x_t
    loss = losses.training_losses(
        tables, network, x, t, e, prediction="noise", variance="fixed_small",
        loss="kl")
    bound = likelihood.bits_per_dim(
        tables, reverse.denoiser(
            tables, network, prediction="noise", variance="fixed_small"),
        x, noise_fn=lambda t: e)
    made = samplers.sample(
        tables, reverse.denoiser(
            tables, network, prediction="noise", variance="fixed_small"),
        step=solvers.ddim(0.5), x_T=z, noise_fn=lambda k: e).x_0
    return [*loss.values(), *jax.tree.leaves(bound), made]


for one, other in zip(all_of(shape), all_of(flat), strict=True):
    one, other = np.asarray(one), np.asarray(other)
    np.testing.assert_allclose(one.reshape(other.shape), other, rtol=2e-5, atol=2e-5)
print("equal")
"""


@pytest.mark.parametrize("axes", [pytest.param(7, marks=pytest.mark.slow), 8])
def test_many_axes_give_the_numbers_of_few(axes):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(axes)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.stdout == "equal\n", (ran.returncode, ran.stderr[-1500:])
