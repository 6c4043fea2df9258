"""Parameters without a gradient, and weights that are no parameters, are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.diagnosis import defects, leaves
from ddpm_jax.models import functional, stepwise, text, unet

SHAPE = (4, 4, 1)


def init(key):
    one, two = jax.random.split(key)
    return {
        "first": jax.random.normal(one, (16, 8)),
        "time": jax.random.normal(two, (8,)),
        "last": jnp.zeros((8, 16)),  # as it is usual, and stops gradients at first
    }


def apply(params, x, t, labels, dropout_keys):
    hidden = x.reshape(len(x), -1) @ params["first"]
    hidden = jnp.tanh(hidden + jnp.sin(t[:, None] * params["time"]))
    return (hidden @ params["last"]).reshape(x.shape)


def still(init, apply, **options):
    network = ddpm_jax.network(init, apply)
    params = network.init(jax.random.key(0))
    return leaves.without_gradient(network, params, SHAPE, num_steps=100, **options)


def held(init, apply):
    network = ddpm_jax.network(init, apply)
    return leaves.held(network, SHAPE, float_timesteps=False)


def traced(init, apply):
    network = ddpm_jax.network(init, apply)
    return leaves.unreached(network, SHAPE, float_timesteps=False)


def test_a_sound_network_has_all_gradients():
    assert still(init, apply) == []
    assert traced(init, apply) == []
    assert held(init, apply) == []


def test_a_zero_layer_alone_would_hide_the_others():
    network = ddpm_jax.network(init, apply)
    params = network.init(jax.random.key(0))
    x = jnp.ones((2, *SHAPE))
    total = jax.grad(lambda p: network.apply(p, x, jnp.array([1, 2])).sum())
    assert not np.any(total(params)["first"])  # what the replacement is for


def test_an_unused_parameter_is_named():
    def with_more(key):
        return {**init(key), "blocks": [{"bias": jnp.ones(3)}]}

    assert still(with_more, apply) == ["blocks/0/bias"]
    assert traced(with_more, apply) == ["blocks/0/bias"]
    (said,) = leaves.remarks(
        ddpm_jax.network(with_more, apply), SHAPE, float_timesteps=False
    )
    assert "blocks/0/bias" in said


def test_a_stopped_parameter_is_named():
    def stopped(params, *given):
        frozen = jax.lax.stop_gradient(params["time"])
        return apply({**params, "time": frozen}, *given)

    assert still(init, stopped) == ["time"]
    assert traced(init, stopped) == ["time"]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_a_layer_in_a_closure_is_found(wrap):
    layer = jax.random.normal(jax.random.key(1), (8, 8))
    mix = wrap(lambda hidden: jnp.tanh(hidden @ layer))

    def closed(params, x, t, labels, dropout_keys):
        hidden = mix(x.reshape(len(x), -1) @ params["first"])
        hidden = hidden + jnp.sin(t[:, None] * params["time"])
        return (hidden @ params["last"]).reshape(x.shape)

    assert still(init, closed) == []  # nothing shows in the gradients
    found = held(init, closed)
    assert [array.shape for array in found] == [(8, 8)]
    for part in ("8×8", "64 numbers", "init"):
        assert part in leaves.remark(found)


def test_a_table_of_frequencies_is_no_weight():
    table = np.linspace(0, 1, 8, dtype=np.float32)

    def tabled(params, x, t, labels, dropout_keys):
        return apply({**params, "time": params["time"] * table}, x, t, None, None)

    assert held(init, tabled) == []
    assert leaves.remark([]) == ""


# ---- defects of XLA, and repeatability -----------------------------------------------


@pytest.mark.parametrize(
    ("output", "status", "words"),
    [
        (
            "ready\nrows True\naxes 2\naxes 8\n",
            0,
            ["right for 2 … 8 axes", "right for 32,769"],
        ),
        ("ready\nrows False\naxes 8\n", 0, ["WRONG for 32,769 rows"]),
        ("ready\nrows True\naxes 5\naxes 6\n", -11, ["crash or are wrong for 7 axes"]),
        ("ready\nrows True\naxes 6\n", None, ["hang for 7 axes"]),
        ("ready\n", -11, ["crash or are wrong for 2 axes"]),
    ],
)
def test_what_the_probes_print_is_told(output, status, words):
    lines = defects.reports(output, status, "a warning")
    said = "\n".join(f"{name} {text}" for name, text in lines)
    for word in words:
        assert word in said
    assert ("XLA_FLAGS" in said) is ("right" not in said or len(words) == 1)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('before'); import no_such_module", "did not start: ModuleNotFound"),
        ("import os; os._exit(9)", "did not start: it says nothing"),
        ("import time; time.sleep(60)", "did not start in 2 s: it says nothing"),
    ],
)
def test_a_process_that_does_not_start_is_no_defect(monkeypatch, program, words):
    monkeypatch.setattr(defects, "SECONDS", 2)
    ((_, text),) = defects.reports(*defects._run(program))
    assert text.startswith(f"not looked for: another process {words}")
    assert "jaxlib" not in text


def test_other_bits_are_told():
    assert "equal to the bit" in defects.verdict(True)
    assert "xla_gpu_deterministic_ops" in defects.verdict(False)
    assert defects.repeatability() == defects.verdict(True)  # CPUs repeat themselves


def test_a_network_that_reads_text_is_sound():
    network = unet.unet(
        image_size=SHAPE[:2],
        in_channels=1,
        out_channels=1,
        channels=8,
        channel_mult=(1,),
        num_res_blocks=1,
        attention_resolutions=(4,),
        num_heads=1,
        norm_groups=4,
        text=text.Text(width=8, layers=1, heads=1, context=3, vocabulary=5),
    )
    params = network.init(jax.random.key(0))
    assert leaves.without_gradient(network, params, SHAPE, num_steps=100) == []


def test_learned_rates_are_of_the_loss_and_not_of_the_network():
    plain = stepwise.mlp(size=16, width=4, layers=1, outputs=16, num_steps=9)
    network = stepwise.with_rates(plain, 9)
    params = network.init(jax.random.key(0))
    assert any(path.startswith(stepwise.RATES) for path in functional.by_path(params))
    assert leaves.unreached(network, SHAPE, float_timesteps=False) == []
    assert leaves.without_gradient(network, params, SHAPE, num_steps=9) == []
