"""Learning rates, AdamW and averages against their definitions in float64."""

import math
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import small_training as small

from ddpm_jax.core import errors
from ddpm_jax.training import ema, optim

# ---- learning rate -------------------------------------------------------------------


def rate_at(step, **options):
    options = {"warmup_steps": 0, "decay": "none", "decay_steps": 1000, **options}
    schedule = optim.learning_rate_schedule(learning_rate=2e-4, **options)
    return float(schedule(step)), float(jax.jit(schedule)(jnp.int32(step)))


@pytest.mark.parametrize(
    ("options", "step", "share"),
    [
        ({}, 0, 1),
        ({}, 10**6, 1),
        ({"warmup_steps": 5000}, 0, 0),
        ({"warmup_steps": 5000}, 1, 1 / 5000),
        ({"warmup_steps": 5000}, 1250, 0.25),
        ({"warmup_steps": 5000}, 5000, 1),
        ({"warmup_steps": 5000}, 90000, 1),
        ({"decay": "linear"}, 0, 1),
        ({"decay": "linear"}, 250, 0.75),
        ({"decay": "linear"}, 999, 0.001),
        ({"decay": "linear"}, 1000, 0),
        ({"decay": "linear"}, 2000, 0),
        ({"decay": "cosine"}, 0, 1),
        ({"decay": "cosine"}, 333.33333, 0.75),
        ({"decay": "cosine"}, 500, 0.5),
        ({"decay": "cosine"}, 1000, 0),
        ({"decay": "cosine"}, 1500, 0),
        ({"decay": "cosine", "warmup_steps": 1000}, 500, 0.25),
        ({"decay": "linear", "warmup_steps": 10}, 5, 0.5 * 0.995),
        ({"decay": "linear", "decay_steps": 1}, 1, 0),
    ],
)
def test_learning_rate(options, step, share):
    expected = 2e-4 * share
    for value in rate_at(step, **options)[: 1 if isinstance(step, float) else 2]:
        # Rounding of float32 at the peak; an end is exactly 0.
        assert value == pytest.approx(expected, abs=2e-4 * 2.0**-22)
        assert (value == 0) == (share == 0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"decay": "exponential"}, "'exponential'.*cosine, linear, none"),
        ({"learning_rate": 0.0}, "learning rate 0.0.*positive"),
        ({"learning_rate": -1e-4}, "learning rate -0.0001.*positive"),
        ({"learning_rate": math.nan}, "learning rate nan.*positive"),
        ({"learning_rate": math.inf}, "learning rate inf.*positive"),
    ],
)
def test_learning_rate_refusals(changes, told):
    options = {"learning_rate": 1e-4, "warmup_steps": 0, "decay": "none"}
    with pytest.raises(errors.Refusal, match=told):
        optim.learning_rate_schedule(**{**options, "decay_steps": 10, **changes})


# ---- AdamW ---------------------------------------------------------------------------

BETA_1, BETA_2, EPSILON = 0.8, 0.95, 1e-3


def reference_adamw(
    params, gradients, rates, *, weight_decay, clip_norm, keep=np.float64
):
    """Kingma & Ba's algorithm 1 with Loshchilov & Hutter's decay, in float64.

    `keep` is the dtype that the first moments are rounded to after each step.
    """
    params = {name: np.float64(value) for name, value in params.items()}
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    clipped = []
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        norm = math.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradient.values()))
        factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
        clipped.append(factor < 1)
        for name, value in params.items():
            g = factor * np.float64(gradient[name])
            m[name] = BETA_1 * m[name] + (1 - BETA_1) * g
            v[name] = BETA_2 * v[name] + (1 - BETA_2) * g * g
            m_hat = m[name] / (1 - BETA_1**t)
            v_hat = v[name] / (1 - BETA_2**t)
            move = m_hat / (np.sqrt(v_hat) + EPSILON) + weight_decay * value
            params[name] = value - rate * move
            m[name] = np.float64(m[name].astype(keep))
    return params, clipped


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_ten_steps_of_adamw(weight_decay, clip_norm):
    random = np.random.default_rng(0)
    params = {"kernel": random.normal(size=(5, 3)), "bias": random.normal(size=3)}
    params = {name: value.astype(np.float32) for name, value in params.items()}
    scales = [1, 0.01, 3, 0.1, 0.05, 10, 1, 0.02, 0.3, 2]
    gradients = [
        {
            name: (scale * random.normal(size=value.shape)).astype(np.float32)
            for name, value in params.items()
        }
        for scale in scales
    ]
    # A warm-up over four steps: the first update moves nothing, yet counts.
    rates = [0.05 * min(step / 4, 1) for step in range(10)]
    optimizer = optim.make_optimizer(
        schedule=lambda step: 0.05 * jnp.minimum(step / 4, 1),
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        beta_1=BETA_1,
        beta_2=BETA_2,
        epsilon=EPSILON,
    )
    expected, clipped = reference_adamw(
        params, gradients, rates, weight_decay=weight_decay, clip_norm=clip_norm
    )
    assert any(clipped) == bool(clip_norm)
    assert not all(clipped)

    @jax.jit
    def advance(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    actual, state = params, optimizer.init(params)
    for number, gradient in enumerate(gradients):
        actual, state = advance(actual, state, gradient)
        if number == 0:
            small.assert_same_bits(small.to_numpy(actual), params)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6)
        assert np.max(np.abs(value - params[name])) > 0.05


def test_clipping_survives_a_gradient_of_zero():
    optimizer = optim.make_optimizer(schedule=lambda step: 0.1, clip_norm=1.0)
    params = {"bias": jnp.ones(3)}
    zero = {"bias": jnp.zeros(3)}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["bias"], np.zeros(3))


def bfloat16_case(beta_1):
    """Parameters, 60 gradients with a mean, and an optimizer with bfloat16 moments."""
    random = np.random.default_rng(5)
    params = {"w": random.normal(size=(7, 9)).astype(np.float32)}
    mean = random.normal(size=(7, 9))
    gradients = [
        {"w": (mean + 0.3 * random.normal(size=(7, 9))).astype(np.float32)}
        for _ in range(60)
    ]
    optimizer = optim.make_optimizer(
        schedule=lambda step: 0.01,
        beta_1=beta_1,
        beta_2=BETA_2,
        epsilon=EPSILON,
        mu_dtype="bfloat16",
    )
    return params, gradients, optimizer


def test_first_moments_in_bfloat16():
    """They are rounded once a step, to nearest, and nothing else is.

    A moment that lies by 1e-7 on the other side of a tie in float32 ends 2⁻⁸ of itself
    away, so a few entries may; a moment multiplied by the bfloat16 next to β₁, as
    Optax's own would be, ends 2⁻⁷ and more away everywhere.
    """
    params, gradients, optimizer = bfloat16_case(BETA_1)
    expected, _ = reference_adamw(
        params,
        gradients,
        [0.01] * 60,
        weight_decay=0.0,
        clip_norm=0.0,
        keep=ml_dtypes.bfloat16,
    )
    exact, _ = reference_adamw(
        params, gradients, [0.01] * 60, weight_decay=0.0, clip_norm=0.0
    )

    @jax.jit
    def advance(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    actual, state = params, optimizer.init(params)
    for gradient in gradients:
        actual, state = advance(actual, state, gradient)
    assert state[0].mu["w"].dtype == ml_dtypes.bfloat16
    assert state[0].nu["w"].dtype == actual["w"].dtype == np.float32
    apart = np.abs(np.float64(actual["w"]) - expected["w"])
    rounding = np.abs(exact["w"] - expected["w"])
    assert np.median(rounding) > 1e-4  # else float32 moments would pass as well
    assert np.mean(apart < 1e-5) > 0.9
    assert np.max(apart) < 60 * 0.01 * 2**-8


@pytest.mark.parametrize("mu_dtype", ["float32", "bfloat16"])
def test_only_first_moments_change_their_dtype(mu_dtype):
    """Twice as small as the parameters, or as large; all else as ever."""
    optimizer = optim.make_optimizer(schedule=lambda step: 0.1, mu_dtype=mu_dtype)
    state = small.make_state(small.make_params(), optimizer=optimizer)
    step = small.make_step(optimizer=optimizer)
    after, _ = jax.eval_shape(step, state, small.make_batch())
    for shapes in (jax.eval_shape(lambda: state), after):
        adam = shapes.opt_state[0]
        wanted = {"mu": mu_dtype, "nu": "float32"}
        for moments, dtype in wanted.items():
            leaves = getattr(adam, moments)
            assert {name: leaf.shape for name, leaf in leaves.items()} == {
                name: leaf.shape for name, leaf in shapes.params.items()
            }
            assert {str(leaf.dtype) for leaf in leaves.values()} == {dtype}
        others = [shapes.params, shapes.ema]
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(others)} == {"float32"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_second_moments_are_float32_or_refused(dtype):
    optimizer = optim.make_optimizer(schedule=lambda step: 0.1)
    params = {"in": jnp.ones(3), "out": jnp.ones(3, dtype)}
    told = f"parameters of {jnp.dtype(dtype)} .*second moments.*model.dtype=bfloat16"
    with pytest.raises(errors.Refusal, match=told):
        jax.eval_shape(optimizer.init, params)


def test_other_dtypes_of_first_moments_are_refused():
    with pytest.raises(errors.Refusal, match=r"'float16'.*bfloat16, float32"):
        optim.make_optimizer(schedule=lambda step: 0.1, mu_dtype="float16")


# ---- averages ------------------------------------------------------------------------

DECAYS = (0.0, 0.5, 0.995, 0.9999)


@pytest.mark.parametrize("ramp", [False, True])
def test_averages_equal_a_float64_loop(ramp):
    steps = 60
    path = small.normals(steps + 1, 4, 3, seed=2)
    averages = {str(decay): {"w": jnp.asarray(path[0])} for decay in DECAYS}
    share = {str(decay): jnp.ones(()) for decay in DECAYS}
    update = jax.jit(lambda *args: ema.update(*args, ramp=ramp))

    expected = {str(decay): np.float64(path[0]) for decay in DECAYS}
    expected_share = {str(decay): 1.0 for decay in DECAYS}
    for step in range(steps):
        averages, share = update(
            averages, share, {"w": jnp.asarray(path[step + 1])}, jnp.int32(step)
        )
        for decay in DECAYS:
            used = min(decay, (1 + step) / (10 + step)) if ramp else decay
            name = str(decay)
            expected[name] = used * expected[name] + (1 - used) * path[step + 1]
            expected_share[name] *= used
    assert set(averages) == set(share) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(averages[name]["w"], value, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(share[name], expected_share[name], rtol=1e-5)
    # Π (1+s)/(10+s) over s < N is N!·9!/(N+9)!, where the ramp is below the rate.
    ramped = math.factorial(steps) * math.factorial(9) / math.factorial(steps + 9)
    closed = ramped if ramp else 0.9999**steps
    assert float(share["0.9999"]) == pytest.approx(closed, rel=1e-5)


@pytest.mark.parametrize(
    ("decay", "step", "ramp", "expected"),
    [
        (0.9999, 0, True, 0.1),
        (0.9999, 90, True, 0.91),
        (0.9999, 10**6, True, 0.9999),
        (0.9999, 0, False, 0.9999),
        (0.05, 0, True, 0.05),
    ],
)
def test_ramp(decay, step, ramp, expected):
    assert float(ema.decay_at(decay, step, ramp=ramp)) == pytest.approx(expected)


def test_the_share_is_how_much_of_the_start_is_left():
    """An average of weights that moved from 1 to 0 is its initial share."""
    averages, share = {"0.9": {"w": jnp.ones(2)}}, {"0.9": jnp.ones(())}
    for step in range(25):
        averages, share = ema.update(
            averages, share, {"w": jnp.zeros(2)}, step, ramp=True
        )
        np.testing.assert_allclose(averages["0.9"]["w"], share["0.9"], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "share", "name", "sentence"),
    [
        ("auto", 0.0099, "0.9999", r"^EMA weights \(EMA 0.9999 holds 0.99 %"),
        (
            "auto",
            0.01,
            None,
            r"^raw weights, because EMA 0.9999 holds 1 %.*s.w=ema ins",
        ),
        ("auto", 0.37, None, r"^raw weights, because EMA 0.9999 holds 37 %"),
        ("ema", 0.37, "0.9999", r"^EMA weights, as asked.*0.9999 holds 37 %"),
        ("ema", 0.0, "0.9999", r"^EMA weights, as asked.*holds 0 %"),
        ("raw", 0.0, None, r"^raw weights, as asked"),
    ],
)
def test_choose(weights, share, name, sentence):
    shares = {"0.5": 0.0, "0.9999": share}
    chosen, told = ema.choose(weights, shares, name="0.9999", field="s.w")
    assert chosen == name
    assert re.search(sentence, told)


def test_choose_without_an_average():
    for which in ("auto", "raw"):
        chosen, told = ema.choose(which, {}, name=None, field="s.w")
        assert chosen is None
        assert told.startswith("raw weights")
    with pytest.raises(errors.Refusal, match=r"s.w='ema': .*is \(\); set s.w=auto"):
        ema.choose("ema", {}, name=None, field="s.w")


def test_choose_refuses_other_words():
    told = r"sampling.weights 'best'.*'auto', 'ema' or 'raw'"
    with pytest.raises(errors.Refusal, match=told):
        ema.choose("best", {"0.9": 0.0}, name="0.9", field="sampling.weights")
