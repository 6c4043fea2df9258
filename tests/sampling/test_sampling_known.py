"""Networks that see what is known of a picture: conditions computed of arrays."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling_sampler import Net, make_mesh, normals
from test_sampling_sampler import make_recipe as plain_recipe

from ddpm_jax.core import conditions, errors
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib
from ddpm_jax.sampling import transforms

SHAPE = (4, 4, 1)
PICTURES = np.clip(normals(2, *SHAPE, seed=3), -1, 1)
HOLES = np.arange(32).reshape(2, *SHAPE) % 3 == 0
SPECS = {
    "known": conditions.Spec(SHAPE, "float32"),
    "known_mask": conditions.Spec((*SHAPE[:2], 1), "float32"),
}
FILLING = 0.25
ONE_STEP_BEFORE = 2  # position on the path of 4 steps


def completed(params, x, t, condition):
    """The best x_0 of a network that fills holes with one grey: it must see both."""
    known, mask = condition["known"], condition["known_mask"]
    x_0 = known * mask + FILLING * (1 - mask)
    return jnp.concatenate([x_0, 0 * x_0], axis=-1)


def blind(params, x, t, condition):
    """A network that says black everywhere."""
    return jnp.concatenate([0 * x - 1, 0 * x], axis=-1)


def make(apply=completed, parts=(), batch_size=7, mesh_shape=(1, 1), trajectory=()):
    recipe = plain_recipe(
        shape=SHAPE,
        prediction="x_0",
        computed=("known", "known_mask"),
        transforms=tuple(map(recipe_lib.part, parts)),
        repeats=2,
        fingerprints=((transforms.PICTURE, "f00d"), (transforms.HOLE, "f00d")),
    )
    sampler = sampler_lib.Sampler(
        recipe,
        Net(apply, SPECS),
        make_mesh(mesh_shape),
        arrays={transforms.PICTURE: PICTURES, transforms.HOLE: HOLES},
        trajectory=trajectory,
    )
    weights = {"none": np.zeros(1, np.float32)}
    return [
        sampler.make(
            weights, start=i, stop=min(i + batch_size, 7), batch_size=batch_size
        )
        for i in range(0, 7, batch_size)
    ]


def images(**options):
    return np.concatenate([made.images for made in make(**options)])


TURNS = np.arange(7) // 2 % 2
WANTED = np.where(HOLES, FILLING, PICTURES)[TURNS]


@pytest.mark.parametrize(
    ("batch_size", "mesh_shape"), [(7, (1, 1)), (1, (1, 1)), (8, (2, 4))]
)
def test_a_network_sees_the_picture_and_the_mask_of_its_turn(batch_size, mesh_shape):
    made = images(batch_size=batch_size, mesh_shape=mesh_shape)
    np.testing.assert_allclose(made, WANTED, atol=1e-6)


def test_every_estimate_has_the_known_pixels():
    (made,) = make(blind, ("overwritten",), trajectory=(0, ONE_STEP_BEFORE))
    for estimate in (*made.estimates, made.images):
        np.testing.assert_array_equal(estimate, np.where(HOLES, -1, PICTURES)[TURNS])


def test_a_condition_that_nothing_computes_is_refused():
    with pytest.raises(errors.Refusal, match="computed condition 'depth'"):
        plain_recipe(computed=("depth",))
