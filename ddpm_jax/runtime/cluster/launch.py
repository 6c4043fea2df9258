"""Which process of how many this is, from flags or from what started it.

Looked for in this order: what the user says; the variables JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID (in an indexed Job of Kubernetes
JOB_COMPLETION_INDEX instead of the last); a step of Slurm's `srun`; the workers of a
TPU slice, in Kubernetes by variables and on TPU VMs by the metadata server.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

from ddpm_jax.core import errors
from ddpm_jax.runtime.cluster import gce

PORT = 8482  # JAX's own choice on TPUs, where 8476 is that of libtpu
SLURM_PORTS = (61440, 4096)  # above those that systems hand out themselves; how many
ATTRIBUTES = "instance/attributes"
METADATA_ATTEMPTS = 3  # without an answer a slice would look like a single host
NUMBERS = r"\d+(?:-\d+)?"
NODES = rf"(?:[^\s,\[\]]|\[{NUMBERS}(?:,{NUMBERS})*\])+"  # e.g. gpu[01-04,7]-ib
FORMS = {
    "the coordinator": "--coordinator=HOST:PORT or JAX_COORDINATOR_ADDRESS",
    "the number of processes": "--num_processes=N or JAX_NUM_PROCESSES",
    "the number of this process": (
        "--process_id=I, JAX_PROCESS_ID or, in Kubernetes, JOB_COMPLETION_INDEX"
    ),
}


@dataclasses.dataclass(frozen=True)
class Launch:
    """One of several processes.

    Attributes:
        coordinator: "host:port" of process 0.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        source: where this is known from, e.g. "Slurm".
        local_device_ids: the GPUs of this process where it sees those of others, too.
    """

    coordinator: str
    num_processes: int
    process_id: int
    source: str
    local_device_ids: tuple[int, ...] | None = None

    def __post_init__(self):
        if not 0 <= self.process_id < self.num_processes:
            raise errors.Refusal(
                f"there is no process {self.process_id} of {self.num_processes} "
                f"({self.source}): they are numbered from 0 to "
                f"{self.num_processes - 1}"
            )


def find(
    environ: Mapping[str, str],
    *,
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    metadata: Callable[[str], str | None] | None = None,
) -> Launch | None:
    """Return which process of how many this is, or None for a process of its own.

    Args:
        environ: the environment variables.
        coordinator, num_processes, process_id: what the user says; each goes before its
            variable.
        metadata: returns an entry of the metadata server by its path, or None; by
            default asked only on a machine with a TPU.

    Raises:
        Refusal: a part is missing or makes no sense.
    """
    coordinator = coordinator or environ.get("JAX_COORDINATOR_ADDRESS", "")
    count = num_processes or _number(environ, "JAX_NUM_PROCESSES")
    given = process_id if process_id >= 0 else _number(environ, "JAX_PROCESS_ID")
    if count == 1 and not given:
        return None
    if coordinator or count or given is not None:
        return _of_settings(environ, coordinator, count, given)
    found = _of_slurm(environ)
    if found or environ.get("JAX_PLATFORMS", "").split(",")[0] not in ("", "tpu"):
        return found
    return _of_tpu(environ, metadata or _metadata_of_tpus(environ))


# ---- what the user says --------------------------------------------------------------


def _of_settings(environ, coordinator, count, given) -> Launch:
    if given is None:  # alone it may be an index of anything
        given = _number(environ, "JOB_COMPLETION_INDEX")
    parts = dict(zip(FORMS, (coordinator or None, count, given), strict=True))
    missing = [part for part, value in parts.items() if value is None]
    if missing:
        raise errors.Refusal(
            f"several processes, but without {' and '.join(missing)}: give "
            f"{'; '.join(FORMS[part] for part in missing)}"
        )
    if ":" not in coordinator:
        coordinator = f"{coordinator}:{PORT}"
    return Launch(coordinator, count, given, "told by flags or JAX_… variables")


def _number(environ, name) -> int | None:
    """Return a variable that holds a whole number, None where it is not set."""
    text = environ.get(name, "")
    if text and not text.isdecimal():
        raise errors.Refusal(
            f"environment variable {name}={text}: give a whole number from 0 up"
        )
    return int(text) if text else None


# ---- Slurm ---------------------------------------------------------------------------


def _of_slurm(environ) -> Launch | None:
    """Return the place within a step of srun, which alone sets SLURM_STEP_NODELIST."""
    nodes = environ.get("SLURM_STEP_NODELIST")
    count = _number(environ, "SLURM_STEP_NUM_TASKS") or _number(environ, "SLURM_NTASKS")
    process = _number(environ, "SLURM_PROCID")
    if not nodes or process is None or (count or 1) == 1:
        return None
    lowest, ports = SLURM_PORTS
    job = _number(environ, "SLURM_JOB_ID") or 0
    step = _number(environ, "SLURM_STEP_ID") or 0
    return Launch(
        f"{expand_nodes(nodes)[0]}:{lowest + (job + step) % ports}",
        count,
        process,
        "Slurm",
        _own_gpus(environ),
    )


def expand_nodes(text: str) -> list[str]:
    """Return the names in a node list of Slurm, e.g. "gpu[01-03,7],login".

    Raises:
        Refusal: it is none.
    """
    if not re.fullmatch(rf"{NODES}(,{NODES})*", text):
        raise errors.Refusal(
            f"SLURM_STEP_NODELIST={text} is not a list of nodes such as gpu[01-03,7]: "
            "give --coordinator, --num_processes and --process_id"
        )
    return [name for part in re.finditer(NODES, text) for name in _expand(part[0])]


def _expand(part) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        return [part]
    numbers, _, after = rest.partition("]")
    names = []
    for piece in numbers.split(","):
        low, _, high = piece.partition("-")
        for number in range(int(low), int(high or low) + 1):
            names += [f"{before}{number:0{len(low)}d}{end}" for end in _expand(after)]
    return names


def _own_gpus(environ) -> tuple[int, ...] | None:
    """Return the GPUs of this task where it sees those of its node's other tasks.

    Slurm shows a task its own ones if told so (--gpus-per-task, --gpu-bind).
    """
    tasks = _tasks_here(environ)
    local = _number(environ, "SLURM_LOCALID")
    if tasks == 1 or local is None or "SLURM_GPUS_PER_TASK" in environ:
        return None
    from ddpm_jax.runtime import devices  # it imports JAX

    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in devices.HIDDEN:
        return None
    there = _number(environ, "SLURM_GPUS_ON_NODE")
    shown = len(visible.split(",")) if visible else there or tasks
    if shown < (there or tasks):
        return None
    if shown % tasks:
        raise errors.Refusal(
            f"{tasks} tasks on this node cannot share its {shown} GPUs equally: start "
            f"one for each with --ntasks-per-node={shown}, or one for all"
        )
    each = shown // tasks
    return tuple(range(local * each, (local + 1) * each))


def _tasks_here(environ) -> int:
    """Return the number of tasks on this node, from e.g. "4(x2),3"."""
    counts = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        counts += [int(match[1])] * int(match[2] or 1) if match else [1]
    node = _number(environ, "SLURM_NODEID") or 0
    return counts[min(node, len(counts) - 1)]


# ---- TPU slices ----------------------------------------------------------------------


def _of_tpu(environ, metadata) -> Launch | None:
    hosts = environ.get("TPU_WORKER_HOSTNAMES", "")
    slices = environ.get("MEGASCALE_NUM_SLICES", "")
    worker = environ.get("TPU_WORKER_ID", "")
    source = "TPU_WORKER_HOSTNAMES"
    if not hosts:
        source = "the TPU's metadata server"
        ends = metadata(f"{ATTRIBUTES}/worker-network-endpoints") or ""
        # Either names or, as of old, name:number:address.
        hosts = ",".join(end.split(":")[-1] for end in ends.split(",") if end)
        slices = slices or _setting(metadata, "MEGASCALE_NUM_SLICES") if hosts else ""
        worker = (metadata(f"{ATTRIBUTES}/agent-worker-number") or "") if hosts else ""
    if slices not in ("", "1"):
        raise errors.Refusal(
            f"MEGASCALE_NUM_SLICES={slices}: several TPU slices are not put together "
            "here; start on one slice, or number the processes of all yourself with "
            "--coordinator, --num_processes and --process_id"
        )
    names = hosts.split(",")
    if len(names) == 1:
        return None
    if not worker.isdecimal():
        raise errors.Refusal(
            f"{source} names {len(names)} workers, but not which one this is: set "
            "TPU_WORKER_ID, or give --coordinator, --num_processes and --process_id"
        )
    return Launch(f"{names[0]}:{PORT}", len(names), int(worker), source)


def _setting(metadata, name) -> str:
    """Return a setting of the TPU's software, a line such as "NAME: '2'"."""
    match = re.search(
        rf"^{name}: *'?([^'\n]*)", metadata(f"{ATTRIBUTES}/tpu-env") or "", re.M
    )
    return match[1] if match else ""


def _metadata_of_tpus(environ) -> Callable[[str], str | None]:
    from ddpm_jax.runtime import devices  # it imports JAX

    asks = "TPU_SKIP_MDS_QUERY" not in environ and devices.tpu_sign(environ)
    if not asks:
        return lambda path: None
    return functools.partial(gce.metadata, attempts=METADATA_ATTEMPTS)
