"""Images under way: what is told at every step, and that the images stay the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import conditions
from ddpm_jax.diffusion import process, respacing, schedules
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib

SHAPE = (4, 4, 1)
WEIGHTS = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32) / 4


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """What a sampler knows of a network."""

    apply: object
    condition_spec: dict

    def prepare(self, params, condition):
        return condition


def mix(params, x, t_seen, condition):
    hidden = x.reshape(len(x), -1) @ params + 0.1 * t_seen[:, None]
    return jnp.tanh(hidden + condition["label"][:, None]).reshape(x.shape)


LABELLED = {"label": conditions.Spec((), "int32", 9)}
MIXING = Net(mix, LABELLED)
OF_LABEL = Net(
    lambda params, x, t_seen, condition: jnp.broadcast_to(
        condition["label"].astype(jnp.float32).reshape(-1, 1, 1, 1), x.shape
    ),
    LABELLED,
)


def sampler_of(network, solver="ancestral", trajectory=(), devices=1, **options):
    betas = schedules.make_betas("cosine", 20)
    recipe = recipe_lib.Recipe(
        **{
            "schedule": respacing.respace(process.Schedule.from_betas(betas), 7),
            "prediction": "noise",
            "variance": "fixed_small",
            "shape": SHAPE,
            "solver": recipe_lib.part(solver),
            "condition": (("label", (2, 0, 1)),),
            **options,
        }
    )
    mesh = sharding.make_mesh(devices, 1, devices=jax.devices()[:devices])
    params = jax.device_put(WEIGHTS, sharding.replicated(mesh))
    return sampler_lib.Sampler(recipe, network, mesh, trajectory=trajectory), params


ALL = {"start": 0, "stop": 5, "batch_size": 8}


@pytest.mark.parametrize(
    ("solver", "devices"), [("ancestral", 8), ("heun", 1), ("dpmpp_2m", 1)]
)
def test_images_made_step_by_step_are_the_images_to_the_bit(solver, devices):
    sampler, params = sampler_of(MIXING, solver, devices=devices)
    whole = sampler.make(params, **ALL).images
    assert np.std(whole) > 0.1
    for every in (1, 3):
        *_, last = sampler.steps(params, **ALL, every=every)
        assert last.done == last.whole == sampler.recipe.evaluations
        assert last.state.tobytes() == whole.tobytes()


def test_every_step_is_told_with_its_estimate():
    # The network says that x_0 is the label, whatever it sees.
    sampler, params = sampler_of(OF_LABEL, "ddim", prediction="x_0")
    told = list(sampler.steps(params, **ALL))
    assert [step.done for step in told] == [1, 2, 3, 4, 5, 6, 7]
    labels = np.reshape([2, 0, 1, 2, 0], (5, 1, 1, 1))
    for step in told:
        np.testing.assert_array_equal(step.estimate, labels + np.zeros(SHAPE))
    # x_t is √ᾱ x_0 and noise, which goes: it comes nearer to the label at each step.
    apart = [np.abs(step.state - labels).mean() for step in told]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] == 0 < apart[-2]


def test_the_last_position_of_a_stretch_is_told():
    sampler, params = sampler_of(MIXING, trajectory=(2, 5, 6))
    whole = sampler.make(params, **ALL)
    told = list(sampler.steps(params, **ALL, every=3))
    assert [step.done for step in told] == [3, 6, 7]
    for number, step in enumerate(told):
        np.testing.assert_array_equal(step.state, whole.states[number])
        np.testing.assert_array_equal(step.estimate, whole.estimates[number])


def test_make_tells_and_keeps_its_trajectory():
    sampler, params = sampler_of(MIXING, trajectory=(0, 4))
    told = []
    made = sampler.make(params, **ALL, on_step=told.append)
    whole = sampler.make(params, **ALL)
    for name in ("images", "states", "estimates"):
        np.testing.assert_array_equal(getattr(made, name), getattr(whole, name))
    assert [step.done for step in told] == list(range(1, 8))
    np.testing.assert_array_equal(told[4].state, made.states[1])


def test_what_is_raised_ends_the_chain():
    sampler, params = sampler_of(MIXING)
    told = []

    def until_three(step):
        told.append(step.done)
        if step.done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sampler.make(params, **ALL, on_step=until_three)
    assert told == [1, 2, 3]


def test_stretches_and_settings_compile_nothing_anew():
    traces = []

    def counting(params, x, t_seen, condition):
        traces.append(1)
        return mix(params, x, t_seen, condition)

    network = Net(counting, LABELLED)
    made = []
    for every, seed in ((1, 0), (3, 0), (7, 0), (2, 1)):
        sampler, params = sampler_of(network, seed=seed)
        made.append(list(sampler.steps(params, **ALL, every=every))[-1].state)
        if every == 1:
            compiled = len(traces)
    assert len(traces) == compiled > 0
    np.testing.assert_array_equal(made[0], made[2])
    assert np.abs(made[3] - made[0]).mean() > 0.01
