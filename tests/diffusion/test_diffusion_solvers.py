"""What the loop offers solvers: a carry, two evaluations a step, entries of every kind.

The solvers here stand in the tests alone; the loop has not been told of them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.core import arrays, errors
from ddpm_jax.diffusion import paths, process, respacing, reverse, samplers, schedules

T, STEPS, SHAPE = 1000, 6, (3, 5)
MEAN, VAR = 0.4, 0.3**2
VALUE = functools.partial(
    jax.tree_util.register_dataclass, data_fields=[], meta_fields=[]
)


def schedule():
    whole = process.Schedule.from_betas(schedules.make_betas("linear", T))
    return respacing.respace(whole, STEPS)


def exact(tables):
    """The exact denoiser of data ~ N(MEAN, VAR), which predicts x_0."""

    def network(x_t, t_seen):
        kept = jnp.asarray(tables.schedule.timesteps)
        t = jnp.searchsorted(kept, t_seen)
        signal = process.at(tables.sqrt_alpha_bar, t, x_t)
        rest = process.at(tables.one_minus_alpha_bar, t, x_t)
        gain = signal * VAR / (signal**2 * VAR + rest)
        return MEAN + gain * (x_t - signal * MEAN)

    return reverse.denoiser(tables, network, prediction="x_0", variance="fixed_small")


def exact_x_0(x, alpha_bar):
    gain = np.sqrt(alpha_bar) * VAR / (alpha_bar * VAR + 1 - alpha_bar)
    return MEAN + gain * (x - np.sqrt(alpha_bar) * MEAN)


def x_T():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def chain(solver, path, **options):
    tables = process.tables(schedule())
    return samplers.sample(
        tables,
        exact(tables),
        step=solver,
        x_T=x_T(),
        noise_fn=lambda k: jnp.zeros(SHAPE),
        path=path,
        **options,
    )


# ---- two evaluations a step: Heun's rule in x/√ᾱ against √(1/ᾱ − 1) ------------------


def coordinates(tables, t, x):
    """Return √ᾱ and σ = √(1/ᾱ − 1) at t, with ᾱ = 1 at −1."""
    index = jnp.maximum(t, 0)
    signal = jnp.where(t < 0, 1.0, tables.sqrt_alpha_bar[index])
    rest = jnp.where(t < 0, 0.0, tables.sqrt_one_minus_alpha_bar[index])
    return arrays.expand_to(signal, x), arrays.expand_to(rest / signal, x)


@VALUE
@dataclasses.dataclass(frozen=True)
class Heun:
    """(t, t′, predict), (t′, t′, correct); the last step is Euler's, (t, −1, step)."""

    reads = "score"
    kinds = ("step", "predict", "correct")

    def init(self, x):
        return (x, x, jnp.zeros(len(x), jnp.int32))  # y, slope, and where they are from

    def step(self, carry, tables, x_t, prediction, t, t_next, noise, *, kind):
        signal, sigma = coordinates(tables, t, x_t)
        signal_next, sigma_next = coordinates(tables, t_next, x_t)
        y, slope = x_t / signal, prediction.noise
        first_y, first_slope, first_t = carry
        _, first_sigma = coordinates(tables, first_t, x_t)
        mean = (first_slope + slope) / 2
        corrected = signal * (first_y + (sigma - first_sigma) * mean)
        moved = signal_next * (y + (sigma_next - sigma) * slope)
        is_correction = kind == paths.KINDS.index("correct")
        return (y, slope, t), jnp.where(is_correction, corrected, moved)

    def path(self, num_steps):
        return heun_path()

    def check_path(self, path):
        pass


def heun_path():
    path = []
    for t in range(STEPS - 1, 0, -1):
        path += [(t, t - 1, "predict"), (t - 1, t - 1, "correct")]
    return (*path, (0, -1, "step"))


def heun_in_float64():
    alpha_bar = schedule().alpha_bar
    sigma, x = np.sqrt(1 / alpha_bar - 1), np.float64(x_T())

    def slope(x, t):
        noise = x - np.sqrt(alpha_bar[t]) * exact_x_0(x, alpha_bar[t])
        return noise / np.sqrt(1 - alpha_bar[t])

    for t in range(STEPS - 1, 0, -1):
        y, here, root = x / np.sqrt(alpha_bar[t]), slope(x, t), np.sqrt(alpha_bar)
        euler = root[t - 1] * (y + (sigma[t - 1] - sigma[t]) * here)
        mean = (here + slope(euler, t - 1)) / 2
        x = root[t - 1] * (y + (sigma[t - 1] - sigma[t]) * mean)
    return x / np.sqrt(alpha_bar[0]) - sigma[0] * slope(x, 0)


def test_a_solver_of_two_evaluations_fits():
    made = chain(Heun(), None).x
    np.testing.assert_allclose(made, heun_in_float64(), atol=1e-4)
    ddim = chain(samplers.ddim(0.0), None).x
    assert np.abs(made - ddim).max() > 0.01


def test_its_predictor_alone_is_ddim():
    path = tuple((t, t - 1, "step") for t in range(STEPS - 1, -1, -1))
    made = chain(Heun(), path).x
    np.testing.assert_allclose(made, chain(samplers.ddim(0.0), None).x, atol=1e-5)


# ---- memory: the estimates of earlier entries ----------------------------------------


@VALUE
@dataclasses.dataclass(frozen=True)
class MeanOfTwo:
    """DDIM with the mean of this entry's x̂_0 and that of the entry before."""

    reads = "score"

    def init(self, x):
        return (jnp.zeros_like(x), jnp.zeros((), jnp.int32))

    def step(self, carry, tables, x_t, prediction, t, t_next, noise, *, kind):
        before, count = carry
        x_0 = prediction.x_0
        mean = jnp.where(count > 0, (x_0 + before) / 2, x_0)
        noise = process.noise_from_x_0(tables, x_t, t, mean)
        mixed = prediction._replace(x_0=mean, noise=noise)
        x = samplers.ddim(0.0)(tables, x_t, mixed, t, t_next, None)
        return (x_0, count + 1), x

    def path(self, num_steps):
        return samplers.sampling_path(num_steps)

    def check_path(self, path):
        pass


def test_a_solver_that_remembers_fits():
    alpha_bar = schedule().alpha_bar
    x, before = np.float64(x_T()), None
    for t in range(STEPS - 1, -1, -1):
        x_0 = exact_x_0(x, alpha_bar[t])
        mean = x_0 if before is None else (x_0 + before) / 2
        noise = (x - np.sqrt(alpha_bar[t]) * mean) / np.sqrt(1 - alpha_bar[t])
        after = alpha_bar[t - 1] if t else 1.0
        x = np.sqrt(after) * mean + np.sqrt(1 - after) * noise
        before = x_0
    np.testing.assert_allclose(chain(MeanOfTwo(), None).x, x, atol=2e-5)


# ---- a path that is data -------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "path"),
    [
        (samplers.ancestral(), samplers.sampling_path(STEPS)),
        (samplers.ddim(0.7), samplers.sampling_path(STEPS)),
        (Heun(), heun_path()),
        (
            samplers.ddim(1.0),
            ((5, 3, "step"), (3, 5, "renoise"), (5, 2, "step"), (2, -1, "step")),
        ),
    ],
)
def test_a_path_as_data_changes_no_bit(solver, path):
    tables = process.tables(schedule())
    draws = np.random.default_rng(1).normal(size=(64, *SHAPE)).astype(np.float32)
    options = {"noise_fn": lambda k: jnp.asarray(draws)[k]}
    made = jax.jit(
        lambda x: (
            samplers.sample(
                tables, exact(tables), step=solver, x_T=x, path=path, **options
            ).x
        )
    )(x_T())

    @jax.jit
    def run(x, entries, count):
        loop = samplers.Loop(
            tables,
            exact(tables),
            solver,
            options["noise_fn"],
            np.zeros(0, np.int32),
            frozenset(kind for _, _, kind in path),
        )
        return samplers.run(loop, x, entries, count).x

    padded = samplers.entries(path, 50)
    again = run(x_T(), padded, np.int32(len(path)))
    assert np.asarray(made).tobytes() == np.asarray(again).tobytes()


def test_padded_tables_are_the_tables():
    plain = process.tables(schedule())
    padded = process.padded_tables(schedule(), T)
    for name in ("alpha_bar", "snr", "posterior_log_var", "timesteps_seen"):
        values = np.asarray(getattr(padded, name))
        assert values.shape == (T,)
        np.testing.assert_array_equal(values[:STEPS], getattr(plain, name))


# ---- entries that are not guided, and transforms -------------------------------------


def shifted(denoise, by):
    def shift(x, t):
        prediction = denoise(x, t)
        return prediction._replace(x_0=prediction.x_0 + by)

    return shift


def test_entries_that_are_not_guided_take_the_plain_network():
    tables = process.tables(schedule())
    plain = exact(tables)
    path = tuple((t, t - 1, "step", t < 2) for t in range(STEPS - 1, -1, -1))

    def sample(denoise, path=None, **options):
        return samplers.sample(
            tables,
            denoise,
            step=samplers.ddim(0.0),
            x_T=x_T(),
            noise_fn=lambda k: None,
            path=path,
            trajectory=range(STEPS),
            **options,
        )

    both = sample(shifted(plain, 0.5), path, plain=plain)
    alone = sample(plain)
    np.testing.assert_allclose(both.trajectory[:4], alone.trajectory[:4], atol=1e-6)
    expected = alone.trajectory_x_0[4] + 0.5  # the first entry that is guided
    np.testing.assert_allclose(both.trajectory_x_0[4], expected, atol=1e-6)
    with pytest.raises(errors.Refusal, match="no plain denoiser"):
        sample(plain, path)


def test_denoiser_transforms_come_in_order_before_predictions():
    def double(denoise):
        def doubled(x, t):
            prediction = denoise(x, t)
            return prediction._replace(x_0=2 * prediction.x_0)

        return doubled

    path = ((0, -1, "step"),)  # the last step returns x̂_0
    plain = chain(samplers.ddim(0.0), path).x
    transforms = (functools.partial(shifted, by=1.0), double)
    made = chain(samplers.ddim(0.0), path, denoiser_transforms=transforms).x
    np.testing.assert_allclose(made, 2 * (plain + 1), rtol=1e-6)


def test_step_transforms_leave_half_steps_and_jumps_alone():
    seen = []

    def mark(x, t_next, noise):
        return x + noise

    def noise_fn(position):
        return jnp.where(position == 0, 0.0, 10.0**position) * jnp.ones(SHAPE)

    path = (
        *((2, 1, "predict"), (1, 1, "correct")),
        *((1, 2, "renoise"), (2, 1, "predict"), (1, 1, "correct")),
        (1, -1, "step"),
    )
    for transforms in ((), (mark,)):
        kept = chain(
            Heun(),
            path,
            step_transforms=transforms,
            transform_noise_fn=noise_fn,
            trajectory=range(len(path)),
        ).trajectory
        seen.append(np.asarray(kept, np.float64))
    plain, marked = seen
    # Position 0 is "predict": nothing is added; position 1 adds 10².
    np.testing.assert_allclose(marked[0], plain[0], atol=1e-6)
    np.testing.assert_allclose(marked[1] - plain[1], 100, atol=1e-3)


def test_a_kind_that_a_solver_does_not_know_is_refused():
    with pytest.raises(errors.Refusal, match="'predict' entry"):
        chain(samplers.ddim(0.0), ((1, 0, "predict"), (0, -1, "step")))
