import pytest

from ddpm_jax.core import errors
from ddpm_jax.runtime.cluster import launch as launch_lib

TOLD = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.3:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "2",
}
SLURM = {  # of task 5 of `srun --nodes=2 --ntasks-per-node=4`
    "SLURM_JOB_ID": "1000003",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_GPUS_ON_NODE": "4",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
TPU_VM = {
    "instance/attributes/agent-worker-number": "1",
    "instance/attributes/worker-network-endpoints": (
        "unknown:unknown:10.164.0.5,unknown:unknown:10.164.0.6"
    ),
}
GKE = {"TPU_WORKER_HOSTNAMES": "job-0.svc,job-1.svc,job-2.svc", "TPU_WORKER_ID": "2"}


def find(environ, entries=(), **flags):
    return launch_lib.find(environ, metadata=dict(entries).get, **flags)


def place(launch):
    return launch.coordinator, launch.num_processes, launch.process_id


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


@pytest.mark.parametrize(
    ("environ", "entries", "expected"),
    [
        (TOLD, {}, ("10.0.0.3:1234", 4, 2)),
        ({**TOLD, "JAX_COORDINATOR_ADDRESS": "host"}, {}, ("host:8482", 4, 2)),
        (
            {**without(TOLD, "JAX_PROCESS_ID"), "JOB_COMPLETION_INDEX": "3"},
            {},
            ("10.0.0.3:1234", 4, 3),
        ),
        (GKE, {}, ("job-0.svc:8482", 3, 2)),
        ({}, TPU_VM, ("10.164.0.5:8482", 2, 1)),
        (
            {},
            {**TPU_VM, "instance/attributes/worker-network-endpoints": "a-w0,a-w1"},
            ("a-w0:8482", 2, 1),
        ),
        ({**GKE, **SLURM, **TOLD}, TPU_VM, ("10.0.0.3:1234", 4, 2)),
        (GKE, TPU_VM, ("job-0.svc:8482", 3, 2)),
    ],
)
def test_what_starts_processes_is_found(environ, entries, expected):
    assert place(find(environ, entries)) == expected


def test_flags_go_before_variables():
    flags = {"coordinator": "here:1", "num_processes": 2, "process_id": 0}
    assert place(find(TOLD, **flags)) == ("here:1", 2, 0)
    assert place(find(SLURM, **flags)) == ("here:1", 2, 0)
    assert place(find(TOLD, process_id=0)) == ("10.0.0.3:1234", 4, 0)


@pytest.mark.parametrize(
    ("environ", "entries"),
    [
        ({}, {}),
        ({"JAX_NUM_PROCESSES": "1"}, {}),
        ({"JAX_NUM_PROCESSES": "1", **SLURM, **GKE}, TPU_VM),
        ({**TOLD, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, {}),
        ({"JOB_COMPLETION_INDEX": "3"}, {}),  # one of many independent runs
        # The script of a batch job, outside srun, has these variables:
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, {}),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, TPU_VM),
        ({}, {**TPU_VM, "instance/attributes/worker-network-endpoints": "a-w0"}),
        ({"JAX_PLATFORMS": "cpu", **GKE}, TPU_VM),
    ],
)
def test_one_process_is_none(environ, entries):
    assert find(environ, entries) is None


@pytest.mark.parametrize(
    ("environ", "flags", "told"),
    [
        (
            without(TOLD, "JAX_PROCESS_ID"),
            {},
            "without the number of this process: give --process_id=I, JAX_PROCESS_ID",
        ),
        (
            without(TOLD, "JAX_NUM_PROCESSES"),
            {},
            "without the number of processes: give --num_processes=N",
        ),
        ({"JAX_PROCESS_ID": "0"}, {}, "without the coordinator and the number of proc"),
        ({}, {"num_processes": 2}, "without the coordinator and the number of this pr"),
        ({}, {"coordinator": "a:1"}, "without the number of processes and the number"),
        ({**TOLD, "JAX_PROCESS_ID": "4"}, {}, "there is no process 4 of 4"),
        ({**TOLD, "JAX_PROCESS_ID": "two"}, {}, "JAX_PROCESS_ID=two"),
        (without(GKE, "TPU_WORKER_ID"), {}, "names 3 workers, but not which one this"),
        ({**GKE, "MEGASCALE_NUM_SLICES": "2"}, {}, "several TPU slices are not put to"),
        ({**TOLD, "JAX_NUM_PROCESSES": "1"}, {}, "there is no process 2 of 1"),
        ({**SLURM, "SLURM_STEP_NODELIST": "gpu[1-"}, {}, "is not a list of nodes"),
    ],
)
def test_halves_and_nonsense_are_refused(environ, flags, told):
    with pytest.raises(errors.Refusal) as refusal:
        find(environ, **flags)
    assert told in str(refusal.value)


def test_several_slices_are_found_by_the_metadata_server():
    settings = "ACCELERATOR_TYPE: 'v4-16'\nMEGASCALE_NUM_SLICES: '2'\nZONE: 'a'\n"
    with pytest.raises(errors.Refusal, match="MEGASCALE_NUM_SLICES=2"):
        find({}, {**TPU_VM, "instance/attributes/tpu-env": settings})
    one = settings.replace("'2'", "'1'")
    assert find({}, {**TPU_VM, "instance/attributes/tpu-env": one}).num_processes == 2


def test_the_metadata_server_is_asked_on_tpus_only(monkeypatch):
    asked = []
    monkeypatch.setattr(
        launch_lib.gce, "metadata", lambda path, attempts: asked.append(path)
    )
    monkeypatch.setattr(
        "ddpm_jax.runtime.devices.tpu_sign", lambda environ: environ.get("sign", "")
    )
    assert launch_lib.find({}) is None
    assert launch_lib.find({"sign": "accel0", "TPU_SKIP_MDS_QUERY": "1"}) is None
    assert asked == []
    assert launch_lib.find({"sign": "accel0"}) is None
    assert asked == ["instance/attributes/worker-network-endpoints"]


def test_slurm():
    launch = find(SLURM)
    host, _, port = launch.coordinator.partition(":")
    assert (host, launch.num_processes, launch.process_id) == ("gpu07", 8, 5)
    # Above the ports that Linux hands out by itself, up to 60999.
    assert 61000 <= int(port) < 2**16
    other = find({**SLURM, "SLURM_JOB_ID": "1000004"})
    assert other.coordinator != launch.coordinator
    assert find({**SLURM, "SLURM_PROCID": "0"}).coordinator == launch.coordinator


@pytest.mark.parametrize(
    ("changes", "gpus"),
    [
        ({}, (1,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "8,2", "SLURM_LOCALID": "1"}, (2, 3)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}, None),
        # What Slurm has bound already: of four GPUs each task sees its own.
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),
        ({"SLURM_GPUS_PER_TASK": "1"}, None),
        ({"CUDA_VISIBLE_DEVICES": "1", "SLURM_GPUS_ON_NODE": ""}, None),
        # Nothing is known of GPUs: one a task.
        (dict.fromkeys(("CUDA_VISIBLE_DEVICES", "SLURM_GPUS_ON_NODE")), (1,)),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles", "SLURM_GPUS_ON_NODE": ""}, None),
    ],
)
def test_tasks_of_a_node_share_its_gpus(changes, gpus):
    environ = {**SLURM, **changes}
    unset = [name for name, value in environ.items() if value is None]
    assert find(without(environ, *unset)).local_device_ids == gpus


def test_gpus_that_tasks_cannot_share():
    with pytest.raises(errors.Refusal, match="4 tasks on this node cannot share its 6"):
        find({**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"})


# As `scontrol show hostnames` expands them.
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("login", "login"),
        ("a,b", "a b"),
        ("node[01-04,7]", "node01 node02 node03 node04 node7"),
        ("n[9-11]", "n9 n10 n11"),
        ("n[098-101],x1", "n098 n099 n100 n101 x1"),
        ("x1,n[2,5-6]", "x1 n2 n5 n6"),
        ("r[1-2]n[0-1]", "r1n0 r1n1 r2n0 r2n1"),
        ("n[1-2]-ib", "n1-ib n2-ib"),
    ],
)
def test_node_lists(text, names):
    assert launch_lib.expand_nodes(text) == names.split()


@pytest.mark.parametrize("text", ["", "n[", "n[1", "n]", "n[a]", "n[1-]"])
def test_what_is_no_node_list(text):
    with pytest.raises(errors.Refusal, match="is not a list of nodes"):
        launch_lib.expand_nodes(text)
