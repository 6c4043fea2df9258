"""The launchers: what they refuse, and the exact commands of their dry runs."""

import pathlib
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from launching import LAUNCH, NASTY, PLACE, TPU, TRAINING, executable, launch

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
WHERE = ["--project=p", "--zone=z"]
QUEUE = ["gcloud", "compute", "tpus", "queued-resources"]
VM = ["gcloud", "compute", "tpus", "tpu-vm"]
DESCRIBE = [*QUEUE, "describe", "t", *WHERE, "--format=value(state.state)"]
CREATE = [*QUEUE, "create", "t", "--node-id=t", *WHERE]
CREATE += ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"]
CREATE += ["--scopes=https://www.googleapis.com/auth/cloud-platform"]
DELETE = [*QUEUE, "delete", "t", *WHERE, "--force", "--quiet"]
ON_ALL = [*VM, "ssh", "t", *WHERE, "--worker=all"]
IMAGE = "--image=eu.gcr.io/x/y:1"


def dry(script, *arguments, env):
    """Return the commands of a dry run as one list of words; it leaves no file."""
    before = sorted(pathlib.Path(env["HOME"]).rglob("*"))
    result = launch(script, *arguments, env=env)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    assert sorted(pathlib.Path(env["HOME"]).rglob("*")) == before
    return shlex.split(result.stdout, comments=True)


@pytest.mark.skipif(
    not shutil.which("shellcheck"), reason="shellcheck is not installed"
)
def test_shellcheck_has_no_objection():
    subprocess.run(
        ["shellcheck", "--external-sources", *SCRIPTS], cwd=LAUNCH.parent, check=True
    )


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("local.sh", [], "nothing to run"),
        ("local.sh", ["--config=x.py"], "unknown option '--config=x.py'"),
        ("local.sh", ["--config=x.py"], "--processes --gpus --port --logs"),
        ("local.sh", ["--processes=0", "--", "--workdir=r"], "--processes=0"),
        ("local.sh", ["--processes=2.5", "--", "--workdir=r"], "--processes=2.5"),
        ("local.sh", ["--processes=2", "--", "--config=x"], "no --workdir"),
        ("local.sh", ["--processes=2", "--", "--workdir=gs://b/r"], "mount"),
        ("local.sh", ["--processes=2", "--gpus=0,1,2", "--", "--workdir=r"], "3 GPUs"),
        ("tpu_vm.sh", [], "create, install, start"),
        ("tpu_vm.sh", ["crate"], "unknown command 'crate'"),
        ("tpu_vm.sh", ["create", "--nmae=t"], "unknown option '--nmae=t'"),
        ("tpu_vm.sh", ["create"], "--name=… (or TPU_NAME)"),
        ("tpu_vm.sh", ["create", *TPU], "--type=… (or TPU_TYPE)"),
        ("tpu_vm.sh", ["create", *TPU, "--type=v9-8"], "--type=v9-8"),
        ("tpu_vm.sh", ["install", *TPU], "--bucket=… or --nfs=…"),
        ("tpu_vm.sh", ["install", *TPU, "--bucket=a", "--nfs=b:/c"], "give one"),
        ("tpu_vm.sh", ["start", *TPU, "--", "--workdir=runs/r"], "not under /mnt/runs"),
        ("tpu_vm.sh", ["start", *TPU, "--", "--workdir=gs://b/r"], "mount"),
        ("slurm.sh", ["--node=2"], "unknown option '--node=2'"),
        ("slurm.sh", ["--nodes=two", "--", "--workdir=r"], "--nodes=two"),
        ("slurm.sh", ["--nodes=2"], "nothing to run"),
        ("kubernetes.sh", ["--gpus=1"], "no --image"),
        ("kubernetes.sh", [IMAGE, "--name=A_b", "--gpus=1"], "--name=A_b"),
        ("kubernetes.sh", [IMAGE], "either --tpu"),
        ("kubernetes.sh", [IMAGE, "--tpu=v", "--topology=4*4"], "--topology=4*4"),
        ("kubernetes.sh", [IMAGE, "--tpu=v", "--topology=3x3"], "cannot be divided"),
        ("kubernetes.sh", [IMAGE, "--gpus=1", "--", "--workdir=/r"], "not under /runs"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_sentence(
    script, arguments, said, bare
):
    result = launch(script, *arguments, env=bare)
    assert result.returncode == 2
    assert not result.stdout
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


@pytest.mark.parametrize("script", ["local", "tpu_vm", "slurm", "kubernetes"])
def test_help_is_the_comment_at_the_top(script, bare):
    result = launch(f"{script}.sh", "--help", env=bare)
    assert result.returncode == 0
    assert f"launch/{script}.sh" in result.stdout
    assert "--dry-run" in result.stdout
    assert "set -euo" not in result.stdout


def test_every_option_stands_in_the_usage_and_is_understood():
    for script in ("local", "tpu_vm", "slurm", "kubernetes"):
        text = (LAUNCH / f"{script}.sh").read_text()
        told = set(re.findall(r"^#   (--[a-z-]+)", text, re.M))
        understood = set(re.findall(r"^    (--[a-z-]+)(?:=\*)?\)", text, re.M))
        assert told == understood


def test_one_process_is_the_plain_command(bare):
    commands = dry("local.sh", "--dry-run", "--", "--config=a.py", NASTY, env=bare)
    assert commands == ["exec", *TRAINING, "--config=a.py", NASTY]


def test_several_processes_differ_by_their_number_and_gpus(bare):
    given = ["--config=a.py", "--workdir=runs/my run", NASTY]
    options = ["--dry-run", "--processes=2", "--port=1234", "--gpus=0,1,2,5"]
    commands = dry("local.sh", *options, "--", *given, env=bare)
    expected = ["mkdir", "-p", "runs/my run.logs"]
    for i, gpus in enumerate(["0,1", "2,5"]):
        expected += ["env", "JAX_COORDINATOR_ADDRESS=127.0.0.1:1234"]
        expected += ["JAX_NUM_PROCESSES=2", f"JAX_PROCESS_ID={i}"]
        expected += [f"CUDA_VISIBLE_DEVICES={gpus}", *TRAINING, *given]
        if i == 1:
            expected += [">>runs/my run.logs/process_1.log", "2>&1"]
        expected += ["&"]
    assert commands == [*expected, "wait"]


def test_the_gpus_are_those_of_the_environment_or_of_the_machine(bare, tmp_path):
    options = ["--dry-run", "--processes=2", "--", "--workdir=r"]
    found = r"CUDA_VISIBLE_DEVICES=(\S+)"

    def shares(**more):
        result = launch("local.sh", *options, env={**bare, **more})
        return re.findall(found, result.stdout)

    assert shares() == []
    assert shares(CUDA_VISIBLE_DEVICES="3,1") == ["3", "1"]
    assert shares(CUDA_VISIBLE_DEVICES="") == []
    executable(
        tmp_path / "bin" / "nvidia-smi", "#!/usr/bin/env bash\nprintf '0\\n1\\n'"
    )
    assert shares() == ["0", "1"]


@pytest.mark.parametrize("spot", [[], ["--spot"]])
def test_a_tpu_is_created_and_waited_for(spot, bare):
    commands = dry("tpu_vm.sh", "create", *TPU, *PLACE, *spot, "--dry-run", env=bare)
    assert commands == [*CREATE, *spot, *DESCRIBE]


def test_a_tpu_takes_its_options_from_the_environment(bare):
    env = {**bare, "TPU_NAME": "t", "TPU_PROJECT": "p", "TPU_ZONE": "z"}
    env |= {"TPU_TYPE": "v5litepod-16", "TPU_SPOT": "yes"}
    assert dry("tpu_vm.sh", "create", "--dry-run", env=env) == [
        *CREATE,
        "--spot",
        *DESCRIBE,
    ]


def remote(commands):
    """Return the scripts that the commands run on the workers; bash can read them."""
    scripts = [w.removeprefix("--command=") for w in commands if w[:10] == "--command="]
    for script in scripts:
        subprocess.run(["bash", "-n", "-c", script], check=True)
    return scripts


@pytest.mark.parametrize("place", ["--bucket=my-runs", "--nfs=10.0.0.2:/share"])
def test_installing_copies_the_checkout_and_mounts(place, bare):
    commands = dry("tpu_vm.sh", "install", *TPU, place, "--dry-run", env=bare)
    archive = f"{bare['TMPDIR']}/ddpm_jax-t.tar.gz"
    copy = ["tar", "--exclude=./.git", "--exclude=./runs", "--exclude=./.venv*"]
    copy += ["-czf", archive, "-C", str(LAUNCH.parent), "."]
    copy += [*VM, "scp", archive, "t:ddpm_jax.tar.gz", *WHERE, "--worker=all"]
    packages, mounts = remote(commands)
    ssh = [f"--command={script}" for script in (packages, mounts)]
    assert commands == [*copy, *ON_ALL, ssh[0], *ON_ALL, ssh[1]]
    assert "bin/python '.[tpu]'" in packages
    assert "mountpoint -q /mnt/runs" in mounts
    assert ("my-runs /mnt/runs\n" in mounts) == ("bucket" in place)
    assert ("-t nfs 10.0.0.2:/share /mnt/runs\n" in mounts) == ("nfs" in place)


def test_a_package_can_be_installed_instead(bare):
    spec = "ddpm-jax[tpu] @ git+https://x.org/y"
    options = [*TPU, *PLACE, f"--package={spec}", "--dry-run"]
    packages, _ = remote(dry("tpu_vm.sh", "install", *options, env=bare))
    assert shlex.split(packages)[-1] == spec
    assert "tar " not in packages


def test_starting_and_resuming_run_the_same_command(bare):
    given = ["--config=a.py", "--workdir=/mnt/runs/my run", NASTY]
    options = [*TPU, *PLACE, "--dry-run", "--"]
    started = dry("tpu_vm.sh", "start", *options, *given, env=bare)
    (script,) = remote(started)
    assert started == [*ON_ALL, f"--command={script}"]
    assert shlex.join([*TRAINING[1:], *given]) == shlex.join(
        shlex.split(re.search(r"python (-m .*) >>\.\./log", script, re.S)[1])
    )
    resumed = dry("tpu_vm.sh", "resume", *options, *given, env=bare)
    installed = dry("tpu_vm.sh", "install", *TPU, *PLACE, "--dry-run", env=bare)
    again = [*DESCRIBE, *DELETE, *CREATE, *DESCRIBE, *installed, *started]
    assert resumed == again


def test_results_come_back_and_the_tpu_is_deleted(bare):
    given = ["--dry-run", "--to=here", "--", "--workdir=/mnt/runs/a/b"]
    copied = dry("tpu_vm.sh", "fetch", *TPU, "--bucket=gs://b", *given, env=bare)
    rsync = ["gcloud", "storage", "rsync", "--recursive", "gs://b/a/b", "here/b"]
    assert copied == ["mkdir", "-p", "here/b", *rsync]
    copied = dry("tpu_vm.sh", "fetch", *TPU, "--nfs=h:/s", *given, env=bare)
    scp = [*VM, "scp", "--recurse", "t:/mnt/runs/a/b", "here", *WHERE, "--worker=0"]
    assert copied == ["mkdir", "-p", "here/b", *scp]
    assert dry("tpu_vm.sh", "delete", *TPU, "--dry-run", env=bare) == DELETE


def test_the_other_commands_of_a_tpu(bare):
    logs = dry("tpu_vm.sh", "logs", *TPU, "--worker=3", "--dry-run", env=bare)
    assert logs[:-1] == [*VM, "ssh", "t", *WHERE, "--worker=3"]
    for command in ("status", "stop"):
        words = dry("tpu_vm.sh", command, *TPU, "--dry-run", env=bare)
        (script,) = remote(words)
        first = DESCRIBE if command == "status" else []
        assert words == [*first, *ON_ALL, f"--command={script}"]


def test_a_slurm_job_is_told_in_time_and_queued_again(bare):
    given = ["--config=a.py", "--workdir=/disk/my run", NASTY]
    options = ["--dry-run", "--nodes=2", "--gpus-per-node=8", "--cpus-per-task=32"]
    options += ["--time=1:00:00", "--partition=gpu", "--sbatch=--account=it's us"]
    commands = dry("slurm.sh", *options, "--", *given, env=bare)
    logs = "/disk/my run.logs"
    assert commands == [
        *["mkdir", "-p", logs],
        *["sbatch", "--job-name=my run", "--nodes=2", "--ntasks-per-node=1"],
        *["--gpus-per-node=8", "--cpus-per-task=32", "--time=1:00:00"],
        *["--signal=TERM@120", "--requeue", "--open-mode=append"],
        *[f"--output={logs}/job_%j.log", "--partition=gpu", "--account=it's us"],
        *[str(LAUNCH / "slurm.sbatch"), str(LAUNCH / "until_told.sh"), logs],
        *[*TRAINING, *given],
    ]


# Of the API jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1, as documented: a field that
# they do not have is ignored without a word, or refused by the cluster.
FIELDS = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "metadata": {"name", "annotations", "labels"},
    "spec": {"network", "failurePolicy", "replicatedJobs"},
    "spec.network": {"enableDNSHostnames", "publishNotReadyAddresses", "subdomain"},
    "spec.failurePolicy": {"maxRestarts", "rules", "restartStrategy"},
    "spec.replicatedJobs": {"name", "replicas", "template"},
}
JOB = {"completionMode", "parallelism", "completions", "backoffLimit"}
JOB |= {"podFailurePolicy", "template"}
POD = {"restartPolicy", "terminationGracePeriodSeconds", "nodeSelector", "containers"}
POD |= {"volumes"}


def manifest(*arguments, env):
    result = launch("kubernetes.sh", "--dry-run", IMAGE, *arguments, env=env)
    assert result.returncode == 0, result.stderr
    assert "__" not in result.stdout
    return yaml.safe_load(result.stdout)


@pytest.mark.parametrize(
    ("options", "pods", "resources"),
    [
        (["--tpu=tpu-v6e-slice", "--topology=4x4"], 4, {"google.com/tpu": 4}),
        (["--tpu=v", "--topology=2x4", "--chips=8"], 1, {"google.com/tpu": 8}),
        (["--gpus=8", "--pods=2"], 2, {"nvidia.com/gpu": 8}),
    ],
)
def test_the_manifest_is_a_jobset(options, pods, resources, bare):
    given = ["--config=a.py", "--workdir=/runs/r", NASTY]
    jobset = manifest("--name=digits", "--claim=disk", *options, "--", *given, env=bare)
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet"
    for path, allowed in FIELDS.items():
        part = jobset
        for name in filter(None, path.split(".")):
            part = part[name]
        for fields in part if isinstance(part, list) else [part]:
            assert set(fields) <= allowed, path
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert set(job) == JOB
    pod = job["template"]["spec"]
    assert set(pod) <= POD
    (container,) = pod["containers"]
    assert container["image"] == IMAGE.removeprefix("--image=")
    assert container["resources"] == {"limits": resources}
    assert (job["parallelism"], job["completions"]) == (pods, pods)
    # <JobSet>-<replicated job>-<job>-<pod>.<subdomain>, which is the JobSet's name
    first = f"digits-{replicated['name']}-0-0.digits:8482"
    assert container["env"] == [
        {"name": "JAX_COORDINATOR_ADDRESS", "value": first},
        {"name": "JAX_NUM_PROCESSES", "value": str(pods)},
    ]
    assert job["completionMode"] == "Indexed"  # sets JOB_COMPLETION_INDEX
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert ("nodeSelector" in pod) == ("google.com/tpu" in resources)
    assert pod["terminationGracePeriodSeconds"] == 120
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert set(mounts) == set(volumes)
    assert mounts["runs"] == "/runs"
    assert volumes["runs"]["persistentVolumeClaim"] == {"claimName": "disk"}
    # Kubernetes turns $$ into $, and $(NAME) into a variable's value.
    *wrapper, name = container["command"][:4]
    assert wrapper == ["bash", "-c", (LAUNCH / "until_told.sh").read_text()]
    assert name == "until_told"
    command = [word.replace("$$", "$") for word in container["command"][4:]]
    assert command == [*TRAINING, *given]


def test_the_template_and_what_restarts_a_job(bare):
    assert yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())["kind"] == "JobSet"
    spec = manifest("--gpus=1", "--", "--workdir=/runs/r", env=bare)["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (job,) = (j["template"]["spec"] for j in spec["replicatedJobs"])
    assert job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onPodConditions": [{"type": "DisruptionTarget"}],
    }


def test_the_manifest_is_what_kubectl_gets(bare, tmp_path):
    got = tmp_path / "got"
    executable(
        tmp_path / "bin" / "kubectl", f'#!/usr/bin/env bash\ncat >"{got}"; echo "$@"\n'
    )
    given = [IMAGE, "--gpus=1", "--", "--workdir=/runs/r"]
    result = launch("kubernetes.sh", *given, env=bare)
    assert result.stdout == "apply --filename=-\n"
    assert (
        got.read_text() == launch("kubernetes.sh", "--dry-run", *given, env=bare).stdout
    )


def commands_of_readme():
    text = (LAUNCH / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("launch/")]


@pytest.mark.parametrize("line", commands_of_readme())
def test_every_command_of_the_readme_is_understood(line, bare):
    variables = {"TPU_NAME": "t", "TPU_PROJECT": "p", "TPU_ZONE": "z"}
    variables |= {"TPU_TYPE": "v5litepod-16", "TPU_BUCKET": "b"}
    script, *words = shlex.split(line, comments=True)
    at = words.index("--") if "--" in words else len(words)
    words.insert(at, "--dry-run")
    result = launch(pathlib.Path(script).name, *words, env={**bare, **variables})
    assert result.returncode == 0, result.stderr
