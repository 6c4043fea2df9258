"""Flags of JAX that choose another random generator change no number that is drawn."""

import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from ddpm_jax.core import keys

PROGRAM = pathlib.Path(__file__).parent / "drawn_numbers.py"
TESTS = PROGRAM.parent.parent
PATHS = (TESTS.parent, TESTS / "training", TESTS / "sampling")
GENERATORS = ("threefry2x32", "rbg", "unsafe_rbg")
DEFAULT = ("threefry2x32", "1")
OTHERS = [c for c in itertools.product(GENERATORS, "10") if c != DEFAULT]


def start(generator, partitionable):
    return subprocess.Popen(
        [sys.executable, PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
            "JAX_DEFAULT_PRNG_IMPL": generator,
            "JAX_THREEFRY_PARTITIONABLE": partitionable,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def finished(process):
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(told)


@functools.cache
def drawn_by_default():
    return finished(start(*DEFAULT))


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(c, marks=() if c == ("rbg", "0") else pytest.mark.slow)
        for c in OTHERS
    ],
    ids="-".join,
)
def test_flags_of_jax_change_no_number(chosen):
    process = start(*chosen)
    assert drawn_by_default() == finished(process)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_key_is_of_one_generator(generator):
    with jax.default_prng_impl(generator):
        made = keys.key_for(5, "train/t")
        assert str(jax.random.key_impl(made)) == keys.GENERATOR
        assert jax.random.key_data(keys.key(5)).tolist() == [0, 5]


DRAWS = {
    "normal": lambda key: keys.normal(key, (6,)),
    "normal_each": lambda key: keys.normal_each(key[None], (6,)),
    "uniform": lambda key: keys.uniform(key, (6,)),
    "bernoulli": lambda key: keys.bernoulli(key, 0.3, (60,)),
    "integers": lambda key: keys.integers(key, (6,), 1000),
    "categorical": lambda key: keys.categorical(key, jax.numpy.zeros(99), 6),
    "split": lambda key: jax.random.key_data(keys.split(key)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_the_same_whatever_the_flags(name):
    key = keys.key(7)
    drawn = jax.jit(DRAWS[name])(key)
    with jax.threefry_partitionable(False), jax.enable_x64(True):
        for draw in (DRAWS[name], jax.jit(DRAWS[name])):
            again = draw(key)
            assert again.dtype == drawn.dtype
            assert again.tolist() == drawn.tolist()
