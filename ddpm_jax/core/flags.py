"""The flags of JAX that this package is written for, whatever a user set for his code.

`jax_numpy_rank_promotion`, `jax_numpy_dtype_promotion` and `jax_transfer_guard` find
slips in the code that they are set for; here types, shapes and copies are meant as they
stand. Flags that change numbers are answered where the numbers are made: see `keys`.
"""

import contextlib

import jax
import numpy as np


@contextlib.contextmanager
def as_written():
    """Run or trace this package's code under the flags that it is written for."""
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.transfer_guard("allow"),
    ):
        yield


@contextlib.contextmanager
def as_program():
    """Do as `as_written`, outside of compiled programs, on meshes of our own alone."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(as_written())
        if jax.sharding.get_abstract_mesh().axis_names:
            none = jax.sharding.Mesh(np.empty((), object), ())
            stack.enter_context(jax.set_mesh(none))
        yield
