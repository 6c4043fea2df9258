"""TPUs that are not there: libtpu compiles for them on a plain CPU machine."""

import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from ddpm_jax.core import errors

EXAMPLES = "v5e:2x4, v5e:4x4, v5p:2x2x2, v6e:4x4 or v4:2x2x2"
# For a compiler alone: libtpu asks no metadata server and finds no fault with its
# silence, leaves the lock on this machine's TPU to others, and keeps no log in /tmp.
# Errors come as exceptions.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_HOST_BOUNDS": "1,1,1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
}
# A v4 chip is one device, its two cores together, unless asked otherwise; elsewhere
# the compiler's default is what users of the machine get.
OPTIONS = {"v4": {"chip_config_name": "megacore"}}


def devices(name: str) -> list[jax.Device]:
    """Return the devices of a TPU slice, to compile for: nothing can run on them.

    Args:
        name: generation and chips along each axis, e.g. "v5e:4x4".

    Raises:
        Refusal: libtpu is not installed, or knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise errors.Refusal(
            f"to compile for {name} the TPU compiler is needed, which runs on any "
            "x86 machine with Linux: pip install 'ddpm-jax[tpu]'"
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    generation = re.split("[:=_]", name)[0]
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **OPTIONS.get(generation, {})
        )
    except jax.errors.JaxRuntimeError as error:
        code, _, reason = str(error).partition("\n")[0].partition(": ")
        if code != "INVALID_ARGUMENT":
            raise
        raise errors.Refusal(
            f"topology {name!r} is none that the TPU compiler knows ({reason}): give "
            f"generation and chips along each axis, such as {EXAMPLES}"
        ) from error
    return list(described.devices)
