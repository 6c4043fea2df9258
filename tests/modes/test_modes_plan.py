"""The plan of a run: numbers that can be checked, verdicts, data that is not there."""

import importlib.util
import os
import re
import subprocess
import sys

import jax
import pytest
import small_runs

from ddpm_jax import config as config_lib
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import planning
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import reading
from ddpm_jax.core import conditions, errors
from ddpm_jax.models import functional
from ddpm_jax.modes import plan
from ddpm_jax.runs import checkpoint_arrays
from ddpm_jax.runtime import cost, hardware
from ddpm_jax.training import progress

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def rows(text):
    """Return {title: {name: text}} of what was printed."""
    tables = {}
    for block in text.split("\n\n"):
        title, *lines = block.strip("\n").splitlines()
        cells = [re.fullmatch(r"  (.{22}) (.*)", line) for line in lines]
        tables[title] = {cell[1].strip(): cell[2].strip() for cell in cells if cell}
    return tables


def number(text):
    """Return the bytes that "1.5 MiB…" begins with."""
    value, unit = re.match(r"([\d,.]+) (\wiB)", text).groups()
    return float(value.replace(",", "")) * UNITS[unit]


@pytest.fixture(scope="module")
def parameters():
    """The number of parameters of the tiny network: those that it draws."""
    config = tiny()
    facts, _ = planning.facts(config)
    init = build_network.network(config, facts).init
    drawn = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(drawn))


def tiny(**changes):
    """Return the config of the tiny run with some fields changed."""
    config = reading.from_file(str(small_runs.ROOT / "configs" / "digits.py"))
    config.model.update(channels=8, norm_groups=4, channel_mult=(1,), num_res_blocks=1)
    config.model.attention_resolutions = ()
    for path, value in changes.items():
        section, field = path.split("__")
        config[section][field] = value
    return config


def test_a_plan_tells_what_the_run_needs(tell, tmp_path, monkeypatch, parameters):
    monkeypatch.chdir(tmp_path)
    told = tell("--mode=plan", *small_runs.TINY, "--config.train.steps=1000")
    assert told.status == 0, told.err
    assert list(tmp_path.iterdir()) == []
    tables = rows(told.out)
    assert tables["network"]["parameters"] == f"{parameters:,}"
    assert tables["devices"]["devices"] == "8 x cpu, 1 process"
    assert tables["devices"]["batch"] == "16 images: 2 on each device"
    held = tables["state on each device"]
    assert number(held["parameters"]) == pytest.approx(4 * parameters, rel=0.01)
    assert number(held["averages"]) == pytest.approx(4 * parameters, rel=0.01)
    assert number(held["optimizer"]) == pytest.approx(8 * parameters, rel=0.01)
    one = number(tables["checkpoints"]["one"])
    assert one == pytest.approx(16 * parameters, rel=0.01)
    # The three that are kept, the best one, and the one being written.
    disk = number(tables["checkpoints"]["on the disk, at most"])
    assert disk == pytest.approx(5 * one, rel=0.01)
    memory = tables["memory of each device"]
    assert number(memory["state and batch"]) == pytest.approx(16 * parameters, rel=0.05)
    assert number(memory["peak"]) > number(memory["state and batch"])
    assert "not known" in memory["peak"]
    # Pure data parallelism sends the gradients, once.
    sent = tables["sent between devices in a step"]
    assert number(sent["all-reduce"]) == pytest.approx(4 * parameters, rel=0.05)
    assert "unknown" in tables["time"]["training takes"]


def test_a_run_that_does_not_fit_is_told_what_to_change(tell, monkeypatch, parameters):
    small = hardware.Peak(bfloat16=2e12, float32=1e12, memory=16 * parameters + 1000)
    monkeypatch.setitem(hardware.PEAKS, "cpu", small)
    told = tell("--mode=plan", *small_runs.TINY, "--config.train.steps=1000000000")
    assert told.status == 0, told.err
    tables = rows(told.out)
    assert tables["memory of each device"]["peak"].endswith("DOES NOT FIT")
    options = re.findall(r"^  (\d)\. (.*)", told.out, re.M)
    assert [int(place) for place, _ in options] == list(range(1, len(options) + 1))
    # The state alone fills the memory: splitting it comes first.
    assert options[0][1].startswith("--config.mesh.fsdp=8")
    for _, option in options[:-1]:
        path, value = re.match(r"--config\.([\w.]+)=(\w+)", option).groups()
        reading.check_name(path, where="a plan")
        assert value
    assert told.lines[-1].endswith("more devices, or a smaller network")

    # 16 images a step, 8 devices of 1 TFLOP/s of which the assumed share is used.
    config = tiny()
    facts, _ = planning.facts(config)
    network = build_network.network(config, facts)
    condition = conditions.abstract(network.condition_spec, 1)
    assert condition.keys() == {"label"}
    forward = cost.forward_flops(network.apply, network.shapes, (8, 8, 1), condition)
    seconds = 1e9 * 16 * 3 * forward / (8 * 1e12 * plan.ASSUMED_MFU)
    takes = tables["time"]["training takes"]
    assert takes.startswith(progress.duration(seconds))


def test_parts_of_the_state_on_each_device():
    config = tiny()
    facts, _ = planning.facts(config)
    network = build_network.network(config, facts)

    def held(fsdp, **changes):
        config = tiny(mesh__fsdp=fsdp, **changes)
        abstract = build_training.abstract_state(
            config, network, build_training.mesh(config)
        )
        return planning.state_bytes(abstract), checkpoint_arrays.size_of(abstract)

    (whole, all_of_it), (split, stored) = held(1), held(8)
    assert all_of_it == stored  # a checkpoint does not depend on the mesh
    assert sum(whole.values()) == pytest.approx(all_of_it, rel=0.001)
    assert all(split[part] < whole[part] for part in whole)
    leaves = functional.by_path(network.shapes).values()
    shardable = sum(s.size for s in leaves if s.size >= 1024)
    left = sum(s.size for s in leaves if s.size < 1024)
    assert split["parameters"] == 4 * (shardable // 8 + left)
    half, _ = held(1, train__mu_dtype="bfloat16")
    saved = whole["optimizer"] - half["optimizer"]
    assert saved == 2 * functional.num_parameters(network.shapes)


def test_savings_begin_with_what_is_short():
    config = tiny(train__batch_size=64)
    mesh = build_training.mesh(config)

    def first(**sizes):
        return planning.savings(config, mesh, **sizes)[0]

    assert "train.microbatches=2:" in first(state=1, temporary=180, limit=100)
    assert "train.microbatches=4:" in first(state=1, temporary=390, limit=100)
    # Eight images on each device: finer than one at a time it cannot be.
    assert "train.microbatches=8:" in first(state=1, temporary=9999, limit=100)
    assert "train.microbatches=2:" in first(state=1, temporary=None, limit=100)
    assert "train.microbatches=2:" in first(state=1, temporary=None, limit=None)
    assert "mesh.fsdp=8:" in first(state=90, temporary=50, limit=100)


def test_savings_leave_out_what_is_done():
    config = tiny(
        train__batch_size=24,
        train__microbatches=3,
        train__mu_dtype="bfloat16",
        model__dtype="bfloat16",
        model__remat="blocks",
        mesh__fsdp=8,
    )
    # Three images on each device, one at a time: nothing is left to be set.
    left = planning.savings(
        config, build_training.mesh(config), state=1, temporary=180, limit=100
    )
    assert left == ["more devices, or a smaller network"]


# ---- the compiler refuses ------------------------------------------------------------


class Failing:
    """Stands for a jitted step that does not compile."""

    def __init__(self, words):
        self.words = words

    def lower(self, *args):
        return self

    def compile(self):
        raise jax.errors.JaxRuntimeError(self.words)


def test_the_compilers_words_on_memory_are_told():
    words = "Ran out of memory, HLO temporaries (33.50G) exceed available HBM (15.75G)"
    step = Failing(
        f"RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: {words}. HLO module: jit_f.\n"
        "See https://openxla.org"
    )
    assert plan.compile_step(step, what="a step") == words
    assert plan.temporaries_of(words) == 33.5 * 2**30
    assert plan.temporaries_of("out of memory") is None


def test_other_errors_of_the_compiler_are_not_swallowed():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        plan.compile_step(Failing("INTERNAL: broken"), what="a step")


# ---- data that is not there ----------------------------------------------------------


def config_of(**data):
    config = config_lib.base()
    config.data.update(data)
    return config


@pytest.mark.parametrize("name", ["cifar10", "tfds:cifar10"])
def test_the_catalogue_knows_data_that_is_not_there(name, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    facts, missing = planning.facts(config_of(name=name, path=str(tmp_path)))
    assert facts.shape == (32, 32, 3)
    assert (facts.levels, facts.num_classes, facts.num_examples) == (256, 10, 0)
    assert f"cifar10 is not in {tmp_path}" in missing


def test_the_config_knows_the_size_of_data_that_is_not_there(tmp_path):
    gone = str(tmp_path / "gone")
    config = config_of(name="folder", path=gone, image_size=(48, 64), channels=1)
    facts, missing = planning.facts(config)
    assert facts.shape == (48, 64, 1)
    assert facts.num_classes is None
    assert gone in missing
    config.model.class_conditional = True
    assert planning.facts(config)[0].num_classes == planning.CLASSES


@pytest.mark.parametrize("name", ["folder", "tfds:no_such_set", "nonsense"])
def test_images_of_unknown_size_are_refused(name, tmp_path):
    config = config_of(name=name, path=str(tmp_path / "gone"))
    with pytest.raises(errors.Refusal, match=r"to plan without the data set data\.im"):
        planning.facts(config)


def test_data_that_is_there_is_looked_at():
    facts, missing = planning.facts(tiny())
    assert missing == ""
    assert facts == build_data.DataInfo.of(build_data.dataset(tiny(), "train"))


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("train.microbatches=3", "train.microbatches=3 .* use 2"),
        ("train.batch_size=12", "train.batch_size=12 .* use 8 or 16"),
        ("train.microbatches=4", "train.microbatches=4 cannot be split .* use 8"),
        ("mesh.fsdp=3", "mesh.fsdp=3 does not divide"),
    ],
)
def test_what_training_refuses_is_refused(tell, field, told):
    said = tell("--mode=plan", *small_runs.TINY, f"--config.{field}")
    assert said.status == 1
    assert re.match(f"error: .*{told}", said.err)


# ---- a TPU that is not there ---------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the TPU compiler: pip install 'ddpm-jax[tpu]'",
)
def test_a_plan_for_a_tpu(tmp_path, parameters):
    arguments = ["--mode=plan", "--topology=v5e:2x2", *small_runs.TINY]
    done = subprocess.run(
        [sys.executable, "-m", "ddpm_jax.main", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(small_runs.ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    tables = rows(done.stdout)
    assert tables["devices"]["devices"] == "4 x TPU v5 lite, 1 process"
    assert tables["devices"]["memory of each"] == "16.00 GiB"
    assert tables["memory of each device"]["peak"].endswith("fits")
    assert tables["network"]["parameters"] == f"{parameters:,}"
    sent = tables["sent between devices in a step"]
    assert number(sent["all-reduce"]) == pytest.approx(4 * parameters, rel=0.05)
    one = number(tables["checkpoints"]["one"])
    assert one == pytest.approx(16 * parameters, rel=0.01)
