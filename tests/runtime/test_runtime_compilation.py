import os
import stat
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.runtime import compilation

PROGRAM = """
from ddpm_jax.runtime import compilation
import jax, jax.numpy as jnp
print(compilation.enable_cache({argument}))
function = jax.jit(lambda x: jnp.sin(x) @ x.T)
compilation.compile_ahead(function, jnp.ones((8, 8)), what="it")
print(jax.config.jax_persistent_cache_min_compile_time_secs)
"""


def run(argument="", **environment):
    """Run PROGRAM in a process of its own and return its lines."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XDG_"))}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(argument=argument)],
        env={**kept, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


def test_cache_lies_in_the_users_cache_directory(tmp_path):
    # A program this small is kept only if none is too quick to compile.
    lines = run(
        XDG_CACHE_HOME=str(tmp_path),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    cache = tmp_path / "ddpm_jax" / "xla"
    assert lines[0] == str(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [path for path in cache.rglob("*") if path.is_file()]
    assert lines[1] == "compiling it (cached for the next time) …"
    assert lines[2].startswith("compiled it in ")
    assert float(lines[-1]) == 0


def test_the_users_own_choice_is_honoured(tmp_path):
    own = tmp_path / "own"
    lines = run(JAX_COMPILATION_CACHE_DIR=str(own), XDG_CACHE_HOME=str(tmp_path / "x"))
    assert lines[0] == str(own)
    assert not (tmp_path / "x").exists()
    assert float(lines[-1]) == 0.05


def test_a_directory_that_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    lines = run(argument=repr(str(tmp_path / "file" / "cache")))
    assert lines[0].startswith(f"no compilation cache: {tmp_path}/file/cache cannot be")
    assert lines[1] == "None"
    assert lines[2] == "compiling it …"


def test_a_directory_that_others_can_write_is_not_used(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    told = []
    before = jax.config.jax_compilation_cache_dir
    assert compilation.enable_cache(shared, say=told.append) is None
    assert len(told) == 1
    assert "others can write it" in told[0]
    assert jax.config.jax_compilation_cache_dir == before


def test_compile_ahead_returns_the_program_and_reports_in_order():
    told = []

    @jax.jit
    def function(x, scale):
        told.append("traced")
        return x * scale

    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    compiled = compilation.compile_ahead(
        function, shape, scale=shape, what="the train step", say=told.append
    )
    np.testing.assert_array_equal(
        compiled(jnp.arange(3.0), scale=jnp.full(3, 2.0)), [0, 2, 4]
    )
    assert told[0].startswith("compiling the train step")
    assert told[1] == "traced"
    assert told[2].startswith("compiled the train step in ")
    assert len(told) == 3
    with pytest.raises(TypeError):
        compiled(jnp.arange(4.0), scale=jnp.full(4, 2.0))
