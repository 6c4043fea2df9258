"""Restorations in the compiled sampler: image i alone, of seven, on eight devices."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling_sampler import Net, make_mesh, normals
from test_sampling_sampler import make_recipe as plain_recipe

from ddpm_jax.diffusion import operators
from ddpm_jax.editing import operators as by_name
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib
from ddpm_jax.sampling.transforms import MEASURED, OPERATOR

SHAPE, COUNT, DRAWS = (4, 4, 1), 3, 2
WEIGHT = np.linalg.qr(normals(16, 16, seed=3).astype(np.float64))[0].astype(np.float32)
IMAGES = np.clip(normals(COUNT, *SHAPE, seed=4), -1, 1)
IMAGES[0] *= 5  # a neighbour with a large residual


def network(params, x, t, condition):
    """The gradient of a convex function, as a denoiser of some data is."""
    flat = x.reshape(len(x), -1)
    x_0 = jnp.tanh(0.7 * flat @ WEIGHT + t[:, None] / 1000) @ WEIGHT.T
    return jnp.concatenate([x_0.reshape(x.shape), jnp.zeros_like(x)], axis=-1)


def named(text):
    return by_name.of_name(text, by_name.Measured(SHAPE, COUNT))


OF_USERS = operators.transposed(lambda x: x[:, ::2] - x[:, 1::2], SHAPE)


def made(operator, likelihood, *, noise=0.3, iterations=5, batch_size=7, mesh=(1, 1)):
    measured = np.asarray(operator.of(np.arange(COUNT)).forward(IMAGES))
    guide = recipe_lib.part(
        f"restoration_{likelihood}",
        scale=1.0,
        iterations=iterations,
        measurement_std=noise,
    )
    last = [] if noise else [recipe_lib.part("projected", iterations=iterations)]
    recipe = plain_recipe(
        shape=SHAPE,
        prediction="x_0",
        hooks=(),
        transforms=(guide, *last),
        repeats=DRAWS,
        fingerprints=((MEASURED, "f00d"), (OPERATOR, "f00d")),
    )
    sampler = sampler_lib.Sampler(
        recipe,
        Net(network),
        make_mesh(mesh),
        arrays={MEASURED: measured, OPERATOR: operator},
    )
    weights = {"none": np.zeros(1, np.float32)}
    parts = [
        sampler.make(
            weights, start=i, stop=min(i + batch_size, 7), batch_size=batch_size
        ).images
        for i in range(0, 7, batch_size)
    ]
    return np.concatenate(parts), measured


@pytest.mark.parametrize(
    ("operator", "likelihood"),
    [
        (named("missing:0.5"), "dps"),
        (named("missing:0.5"), "exact"),
        (named("superres:2"), "exact"),
        (OF_USERS, "pigdm"),
    ],
)
def test_image_i_alone_is_image_i_of_seven_and_of_eight_devices(operator, likelihood):
    whole, _ = made(operator, likelihood)
    for options in ({"batch_size": 1}, {"batch_size": 8, "mesh": (2, 4)}):
        other, _ = made(operator, likelihood, **options)
        np.testing.assert_allclose(other, whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["superres:2", "missing:0.5"])
def test_draws_of_an_exact_measurement_lie_on_it(name):
    operator = named(name)
    images, measured = made(operator, "pigdm", noise=0.0)
    turn = np.arange(7) // DRAWS % COUNT
    again = np.asarray(operator.of(turn).forward(images))
    np.testing.assert_allclose(again, measured[turn], rtol=1e-5, atol=1e-5)
    assert np.abs(images[0] - images[1]).max() > 0.01  # draws differ


def test_another_blur_noise_or_number_of_iterations_compiles_nothing():
    net = Net(network)
    structures = set()
    for name, noise, iterations in (("blur:1", 0.1, 5), ("blur:2", 0.2, 9)):
        guide = recipe_lib.part(
            "restoration_exact",
            scale=1.0,
            iterations=iterations,
            measurement_std=noise,
        )
        recipe = plain_recipe(
            shape=SHAPE,
            prediction="x_0",
            transforms=(guide,),
            fingerprints=((MEASURED, name), (OPERATOR, name)),
        )
        arrays = {MEASURED: IMAGES, OPERATOR: named(name)}
        sampler = sampler_lib.Sampler(recipe, net, make_mesh((1, 1)), arrays=arrays)
        weights = {"none": np.zeros(1, np.float32)}
        sampler.make(weights, start=0, stop=1, batch_size=1)
        structures.add(recipe.structure())
    (program,) = vars(net)["_sampling_programs"].values()
    assert len(structures) == 1
    assert program._cache_size() == 1
