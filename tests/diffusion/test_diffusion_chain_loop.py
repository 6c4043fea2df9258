"""The compiled loop of a chain: programs, snapshots, transforms, paths, refusals."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle_network
import pytest
from chains import SHAPE, STEPS, make_denoiser, make_tables, mixing, normals, run

from ddpm_jax.core import errors
from ddpm_jax.diffusion import guidance, likelihood, process, reverse, samplers

# ---- the loop ------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["ancestral", "ddim0"])
def test_jit_and_no_jit(step):
    tables = make_tables("cosine", 30, 6)
    denoise = make_denoiser(tables)
    chex.assert_trees_all_close(
        run(tables, denoise, STEPS[step], jit=True, trajectory=(1, 4)),
        run(tables, denoise, STEPS[step], jit=False, trajectory=(1, 4)),
        rtol=1e-5,
        atol=1e-5,
    )


def program(num_steps, trajectory=None):
    """The traced chain, and how often it evaluated the network while tracing."""
    tables = make_tables("linear", num_steps)
    calls = []
    inner = mixing()

    def network(x_t, t_seen):
        calls.append(x_t.shape)
        return inner(x_t, t_seen)

    denoise = make_denoiser(tables, network)
    shape = (64, 3, 2)

    def chain(x_T):
        return samplers.sample(
            tables,
            denoise,
            step=samplers.ancestral(),
            x_T=x_T,
            noise_fn=lambda k: jnp.full(shape, k, jnp.float32),
            trajectory=trajectory,
        )

    traced = jax.jit(chain).trace(jnp.zeros(shape))
    return traced, len(calls)


@pytest.mark.parametrize("trajectory", [None, (0, 5)])
def test_program_and_memory_do_not_grow_with_the_number_of_steps(trajectory):
    sizes, temporaries = [], []
    for num_steps in (25, 1000):
        traced, calls = program(num_steps, trajectory)
        assert calls == 1
        sizes.append(str(traced.jaxpr).count(" = "))  # equations
        memory = traced.lower().compile().memory_analysis()
        temporaries.append(memory.temp_size_in_bytes + memory.output_size_in_bytes)
    assert sizes[0] == sizes[1]
    # A state is 1,536 bytes: a kept chain of 1000 would need 1.5 MB. What grows are
    # the tables and the path, a few numbers a step.
    assert temporaries[1] - temporaries[0] < 1000 * 100


def test_one_trace_for_many_calls():
    tables = make_tables("linear", 1000, 10)
    denoise = make_denoiser(tables)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def chain(x_T, draws):
        return samplers.sample(
            tables,
            denoise,
            step=samplers.ddim(eta=0.5),
            x_T=x_T,
            noise_fn=lambda k: draws[k],
        ).x_0

    one = chain(normals(*SHAPE), normals(10, *SHAPE))
    two = chain(normals(*SHAPE), normals(10, *SHAPE))
    other = chain(normals(*SHAPE), normals(10, *SHAPE, seed=1))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 1e-3


# ---- snapshots -----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["ancestral", "ddim0.5"])
def test_snapshots_are_states_of_the_chain(step):
    tables = make_tables("cosine", 30, 4)
    denoise = make_denoiser(tables)
    draws = normals(4, *SHAPE, seed=1)
    whole = run(tables, denoise, STEPS[step], draws=draws, trajectory=range(4))
    assert whole.trajectory.shape == (4, *SHAPE)
    assert whole.trajectory_x_0.shape == (4, *SHAPE)
    np.testing.assert_array_equal(whole.trajectory[-1], whole.x_0)
    some = run(tables, denoise, STEPS[step], draws=draws, trajectory=(0, 1, 3))
    np.testing.assert_array_equal(
        some.trajectory, whole.trajectory[np.array([0, 1, 3])]
    )
    none = run(tables, denoise, STEPS[step], draws=draws)
    np.testing.assert_array_equal(none.x_0, whole.x_0)
    assert none.trajectory is None

    # Each state follows from the one before by a single step of its own, and the
    # estimate of a position is the denoiser's at the state before it.
    states = [jnp.asarray(normals(*SHAPE)), *whole.trajectory]
    for position in range(4):
        t = 3 - position
        alone = run(
            tables,
            denoise,
            STEPS[step],
            x_T=states[position],
            draws=draws[position][None],
            path=((t, t - 1, "step"),),
        )
        np.testing.assert_allclose(
            alone.x_0, whole.trajectory[position], rtol=1e-5, atol=1e-6
        )
        estimate = denoise(states[position], jnp.full(4, t)).x_0
        np.testing.assert_allclose(
            whole.trajectory_x_0[position], estimate, rtol=1e-5, atol=1e-6
        )


def test_noise_is_asked_for_by_position():
    tables = make_tables("linear", 1000, 5)
    x_0 = jnp.zeros(SHAPE)
    denoise = make_denoiser(tables, lambda x_t, t_seen: x_0, variance="fixed_large")
    draws = np.zeros((5, *SHAPE), np.float32)
    draws[3] = 1.0  # the step from t = 1 to t = 0
    result = run(
        tables,
        denoise,
        samplers.ancestral(),
        x_T=np.zeros(SHAPE, np.float32),
        draws=draws,
        trajectory=range(5),
    )
    beta = tables.schedule.betas[1]
    for position in (0, 1, 2):
        np.testing.assert_array_equal(result.trajectory[position], np.zeros(SHAPE))
    np.testing.assert_allclose(
        result.trajectory[3], np.full(SHAPE, np.sqrt(beta)), rtol=1e-6
    )
    draws[:] = 0
    draws[4] = 1.0  # the last step draws but adds nothing
    result = run(tables, denoise, samplers.ancestral(), x_T=x_0, draws=draws)
    np.testing.assert_array_equal(result.x_0, np.zeros(SHAPE))


# ---- transforms ----------------------------------------------------------------------


def test_step_transforms_act_on_the_start_and_after_every_step():
    tables = make_tables("linear", 1000, 5)
    start = normals(*SHAPE)
    streams = jnp.asarray(normals(6, *SHAPE, seed=4))

    def pin(x, t_next, noise):
        """Write the marginal of a known x_0 = 1 into the first element."""
        t_next = t_next.reshape(-1, 1)
        index = jnp.maximum(t_next, 0)
        signal = jnp.where(t_next < 0, 1.0, tables.sqrt_alpha_bar[index])
        spread = jnp.where(t_next < 0, 0.0, tables.sqrt_one_minus_alpha_bar[index])
        return x.at[:, 0, :1].set(signal + spread * noise[:, 0, :1])

    seen = []

    def network(x_t, t_seen):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x_t)
        return mixing()(x_t, t_seen)

    result = run(
        tables,
        make_denoiser(tables, network),
        samplers.ancestral(),
        x_T=start,
        jit=False,
        step_transforms=(pin,),
        transform_noise_fn=lambda k: streams[k],
        trajectory=range(5),
    )
    jax.effects_barrier()
    alpha_bar = tables.schedule.alpha_bar
    # What the network saw at position k was written for t = 4 − k with noise k.
    for position, x_t in enumerate(seen):
        t = 4 - position
        expected = np.sqrt(alpha_bar[t]) + np.sqrt(1 - alpha_bar[t]) * np.asarray(
            streams[position, :, 0, 0]
        )
        np.testing.assert_allclose(x_t[:, 0, 0], expected, rtol=1e-5)
    assert len(seen) == 5
    np.testing.assert_array_equal(result.x_0[:, 0, 0], np.ones(4))  # bit-exact
    np.testing.assert_array_equal(seen[0][:, 1:], start[:, 1:])


def test_prediction_transforms_run_in_order():
    tables = make_tables("linear", 1000, 4)
    x_0 = jnp.asarray(normals(*SHAPE, seed=9))

    def add_one(x_t, t, prediction):
        return prediction._replace(x_0=prediction.x_0 + 1)

    def double(x_t, t, prediction):
        return prediction._replace(x_0=prediction.x_0 * 2)

    result = run(
        tables,
        make_denoiser(tables, lambda x_t, t_seen: x_0),
        samplers.ddim(eta=0.0),
        prediction_transforms=(add_one, double),
    )
    np.testing.assert_allclose(result.x_0, 2 * (x_0 + 1), rtol=1e-6)


# ---- paths ---------------------------------------------------------------------------


def test_the_default_paths():
    down = samplers.sampling_path(3)
    assert tuple(map(tuple, down)) == ((2, 1, "step"), (1, 0, "step"), (0, -1, "step"))
    up = samplers.encoding_path(3)
    assert tuple(map(tuple, up)) == ((0, 1, "step"), (1, 2, "step"))


def test_renoising_draws_from_the_forward_process():
    # Down to t = 2, up again to t = 4, and down: the jump is √(ᾱ_4/ᾱ_2) x + noise.
    tables = make_tables("linear", 1000, 6)
    alpha_bar = tables.schedule.alpha_bar
    calls = []
    inner = mixing()

    def network(x_t, t_seen):
        jax.debug.callback(lambda t: calls.append(int(t[0])), t_seen)
        return inner(x_t, t_seen)

    path = (
        *((t, t - 1, "step") for t in (5, 4, 3)),
        (2, 4, "renoise"),
        *((t, t - 1, "step") for t in (4, 3, 2, 1, 0)),
    )
    draws = normals(len(path), *SHAPE, seed=1)
    result = run(
        tables,
        make_denoiser(tables, network),
        samplers.ancestral(),
        draws=draws,
        path=path,
        trajectory=range(len(path)),
    )
    jax.effects_barrier()
    ratio = alpha_bar[4] / alpha_bar[2]
    expected = np.sqrt(ratio) * np.asarray(result.trajectory[2])
    expected = expected + np.sqrt(1 - ratio) * draws[3]
    np.testing.assert_allclose(result.trajectory[3], expected, rtol=1e-5, atol=1e-6)
    kept = tables.schedule.timesteps
    assert calls == [kept[t] for t in (5, 4, 3, 4, 3, 2, 1, 0)]
    rest = run(
        tables,
        make_denoiser(tables),
        samplers.ancestral(),
        x_T=result.trajectory[3],
        draws=draws[4:],
        path=path[4:],
    )
    np.testing.assert_allclose(rest.x_0, result.x_0, rtol=1e-5, atol=1e-6)


def test_renoising_keeps_the_law_of_gaussian_data():
    # Exact reverse steps and exact forward jumps leave the marginals alone.
    tables, oracle = oracle_network.build("linear", 1000, 10)
    log_var = np.log(oracle.reverse_var)
    denoise = make_denoiser(
        tables,
        oracle_network.network(tables, oracle, "noise", log_var, "learned"),
        prediction="noise",
        variance="learned",
    )
    count = 20000
    start = oracle.center[-1] + np.sqrt(oracle.var[-1]) * normals(count, 4)
    path = (
        *((t, t - 1, "step") for t in (9, 8, 7, 6)),
        (5, 8, "renoise"),
        *((t, t - 1, "step") for t in (8, 7, 6)),
    )
    result = run(
        tables,
        denoise,
        samplers.ancestral(),
        x_T=start.astype(np.float32),
        path=path,
        trajectory=(3, 4, 7),
    )
    for state, t in zip(result.trajectory, (5, 8, 5), strict=True):
        values = np.asarray(state, np.float64)
        error = np.abs(values.mean(axis=0) - oracle.center[t])
        assert (error < 4.5 * np.sqrt(oracle.var[t] / count)).all()
        error = np.abs(values.var(axis=0) / oracle.var[t] - 1)
        assert (error < 4.5 * np.sqrt(2 / count)).all()


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "path", "parts"),
    [
        (samplers.ancestral(), ((5, 3, "step"),), ["5", "3", "ancestral"]),
        (samplers.ancestral(), ((3, 4, "step"),), ["3", "4"]),
        (samplers.ddim(eta=0.0), ((3, 4, "step"),), ["3", "4"]),
        (samplers.ddim(eta=0.0), ((3, 3, "step"),), ["3"]),
        (samplers.reverse_ddim(), ((4, 3, "step"),), ["4", "3"]),
        (samplers.ddim(eta=0.0), ((4, 2, "renoise"),), ["renoise", "4", "2"]),
        (samplers.ddim(eta=0.0), ((4, 3, "jump"),), ["jump", "step", "renoise"]),
        (samplers.ddim(eta=0.0), ((10, 3, "step"),), ["10", "9"]),
        (samplers.ddim(eta=0.0), ((3, -2, "step"),), ["-2"]),
        (samplers.ddim(eta=0.0), (), ["path"]),
    ],
)
def test_impossible_paths_are_refused(step, path, parts):
    tables = make_tables("linear", 1000, 10)
    with pytest.raises(errors.Refusal) as caught:
        run(tables, make_denoiser(tables), step, path=path, jit=False)
    for part in parts:
        assert part in str(caught.value).replace("−", "-")


@pytest.mark.parametrize(
    ("step", "form"), [(samplers.ancestral(), "score"), (samplers.ddim(), "mean")]
)
def test_a_form_that_does_not_fit_the_step_is_refused(step, form):
    tables = make_tables("linear", 1000, 10)
    transform = guidance.classifier(
        tables, lambda x, t: jnp.zeros(len(x)), 1.0, form=form
    )
    with pytest.raises(errors.Refusal, match=form):
        run(tables, make_denoiser(tables), step, prediction_transforms=(transform,))


def test_a_hook_that_cannot_reach_the_mean_is_refused():
    tables = make_tables("linear", 1000, 10)

    def chain(step, *hooks):
        denoise = reverse.denoiser(
            tables,
            mixing(),
            prediction="x_prev",
            variance="fixed_small",
            x_0_hooks=hooks,
        )
        return run(tables, denoise, step)

    def hook(x_0, x_t, t):
        return x_0

    for other in (hook, reverse.dynamic_thresholding(0.99, 2.0)):
        with pytest.raises(errors.Refusal, match="x_prev"):
            chain(samplers.ancestral(), other, reverse.clipping(-1, 1))
        chain(samplers.ddim(eta=0.0), other)
    chain(samplers.ancestral(), reverse.clipping(-1, 1))


@pytest.mark.parametrize(
    "other", [("linear", 1000, 20), ("cosine", 1000, 10)], ids=["steps", "betas"]
)
def test_a_denoiser_of_another_process_is_refused(other):
    tables, theirs = make_tables("linear", 1000, 10), make_tables(*other)
    words = f"tables of 10 steps, and a denoiser .* of {theirs.num_steps} steps"
    denoise = make_denoiser(theirs)
    with pytest.raises(errors.Refusal, match=words):
        run(tables, denoise, samplers.ddim())
    with pytest.raises(errors.Refusal, match=words):
        run(tables, make_denoiser(tables), samplers.ddim(), plain=denoise)
    x_0 = jnp.zeros(SHAPE)
    with pytest.raises(errors.Refusal, match=words):
        likelihood.bits_per_dim(tables, denoise, x_0, noise_fn=lambda k: x_0)


def test_a_denoiser_of_an_equal_process_passes():
    tables, equal = (make_tables("linear", 1000, 4) for _ in range(2))
    padded = process.padded_tables(tables.schedule, 4)
    for theirs in (equal, jax.tree.map(jnp.asarray, padded)):
        denoise = reverse.Denoiser(theirs, mixing(), "x_0", "fixed_small", ())
        run(tables, denoise, samplers.ddim())


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_impossible_eta_is_refused(eta):
    with pytest.raises(errors.Refusal, match="eta"):
        samplers.ddim(eta=eta)


@pytest.mark.parametrize("position", [10, -1])
def test_impossible_snapshots_are_refused(position):
    tables = make_tables("linear", 1000, 10)
    with pytest.raises(errors.Refusal, match=str(position)):
        run(tables, make_denoiser(tables), samplers.ddim(), trajectory=(position,))


def test_step_transforms_need_noise_of_their_own():
    tables = make_tables("linear", 1000, 10)
    with pytest.raises(errors.Refusal, match="noise"):
        run(
            tables,
            make_denoiser(tables),
            samplers.ddim(),
            step_transforms=(lambda x, t_next, noise: x,),
        )
