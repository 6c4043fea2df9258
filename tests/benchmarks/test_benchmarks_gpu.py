"""python -m benchmarks.gpu: its section, what it keeps and refuses, and its references.

No GPU is needed, and nothing is raced but one attention of 16 pixels.
"""

import math
import pathlib
import sys
import time

import jax
import numpy as np
import pytest

from ddpm_jax.core import errors

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks import apart, device_time, gpu, gpu_jobs, registry  # noqa: E402

PARTS = [
    gpu_jobs.Part("Speed", ("what", "ms"), [("ours", "1.0"), ("theirs", "2.0")]),
    gpu_jobs.Part("Time", ("kind",), [("copies",)]),
]
MORE = gpu_jobs.Part("Speed", ("what", "ms"), [("ours, larger", "9.0")])


def arguments(*flags):
    return gpu.parser().parse_args(flags)


def job(measure, seconds=10):
    return gpu_jobs.Job("a thing", measure, ("--flag",), seconds)


# ---- the section ---------------------------------------------------------------------


def test_rows_of_one_title_come_into_one_table():
    text = gpu.section("a GPU", "python", [*PARTS, MORE], {"slow": "no time"})
    speed, rest = text.split("### Speed\n")[1].split("### Time\n")
    table = speed.strip().splitlines()
    assert [line.split("|")[1].strip() for line in table] == (
        ["what", "---", "ours", "theirs", "ours, larger"]
    )
    assert {line.count("|") for line in table} == {3}
    assert "| copies |" in rest
    assert "* slow: no time" in rest
    assert text.startswith("## On a GPU\n\na GPU: `python`")


def test_what_was_measured_is_kept_and_read_again(tmp_path):
    assert gpu.kept(tmp_path, "one") is None
    gpu.keep(tmp_path, "one", PARTS)
    found = gpu.kept(tmp_path, "one")
    assert [part.title for part in found] == ["Speed", "Time"]
    assert [tuple(row) for row in found[0].rows] == PARTS[0].rows
    assert gpu.section("", "", found, {}) == gpu.section("", "", PARTS, {})


def test_the_next_call_goes_on(tmp_path, monkeypatch):
    done = []

    def at_once(function, args, seconds):
        done.append(args[2:])
        return function(*args)

    monkeypatch.setattr(apart, "measured", at_once)
    jobs = {
        "good": job(lambda *args: apart.Outcome(PARTS)),
        "bad": job(lambda *args: apart.Outcome(None, apart.FAILED)),
        "long": job(None, seconds=10_000),
    }
    args = arguments(f"--out={tmp_path}")
    end = time.monotonic() + 1000
    left_out = gpu.measure(args, jobs, end)
    assert left_out.keys() == {"bad", "long"}
    assert left_out["bad"] == apart.FAILED
    assert "10000 s" in left_out["long"]
    gpu.measure(args, jobs, end)
    assert len(done) == 3  # "good" once, "bad" twice


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "backend", "told"),
    [
        (["--out=x"], "cpu", "'cpu'.*--tiny"),
        (["--out=x"], "tpu", "'tpu'.*--tiny"),
        ([], "gpu", "--out=measured"),
    ],
)
def test_what_cannot_be_measured_is_refused(flags, backend, told):
    with pytest.raises(errors.Refusal, match=told):
        gpu.check(arguments(*flags), backend)


def test_a_gpu_or_a_tiny_form_is_not_refused():
    gpu.check(arguments("--out=x"), "gpu")
    gpu.check(arguments("--out=x", "--tiny"), "cpu")


@pytest.mark.parametrize(
    ("flag", "told"), [("--minutes=0", "--minutes=10"), ("--only=adm", "train_adm64")]
)
def test_a_wrong_flag_is_refused_before_anything_is_written(flag, told, tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(errors.Refusal, match=told):
        gpu.run(arguments(f"--out={folder}", "--tiny", flag))
    assert not folder.exists()


# ---- the jobs ------------------------------------------------------------------------


def test_the_scripts_take_the_flags_of_every_job():
    for name, each in gpu_jobs.JOBS.items():
        if each.measure is gpu_jobs.attention:
            continue
        script = "train_step" if each.measure is gpu_jobs.train else "sample"
        parser = registry.imported(script).parser()
        args = parser.parse_args([*each.flags, *gpu_jobs.TINY])
        assert (args.preset, args.rounds, args.compiled) == ("tiny", 2, False), name
        assert not each.needs_torch


def test_two_calls_are_enough_for_all_but_a_few():
    # The first half of the time that a machine is lent for, then the rest.
    assert sum(each.seconds for each in gpu_jobs.JOBS.values()) < 25 * 60
    first = next(iter(gpu_jobs.JOBS.values()))
    assert first.seconds < 60


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--alone"], {}),
        (["--no-compiled"], {"PyTorch eager": {}}),
        (
            ["--compiled", "--torch-mode=max-autotune"],
            {"PyTorch eager": {}, "torch.compile": {"mode": "max-autotune"}},
        ),
        (
            ["--no-compiled", "--half", "--dtype=bfloat16"],
            {"PyTorch eager": {}, "PyTorch eager, float16, NCHW": {"half": True}},
        ),
        (["--no-compiled", "--half"], {"PyTorch eager": {}}),
    ],
)
def test_who_races_in_pytorch(flags, wanted):
    presets = registry.imported("presets")
    assert presets.rivals(presets.parser("").parse_args(flags)) == wanted


def test_the_exact_attention_is_that_of_jax():
    rng = np.random.default_rng(0)
    q, k, v, seen = rng.normal(size=(4, 5, 2, 3))

    def both(q, k, v, seen):
        out, pull = jax.vjp(jax.nn.dot_product_attention, q, k, v)
        return out, *pull(seen)

    options = {"xla_backend_optimization_level": 0}
    given = (np.float32(array[None]) for array in (q, k, v, seen))
    wanted = jax.jit(both, compiler_options=options)(*given)
    found = gpu_jobs.exact_attention(q, k, v, seen)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, two[0], rtol=1e-4, atol=1e-5)


def test_attention_is_checked_against_it(tmp_path):
    (part,) = gpu_jobs.attention(tmp_path, True)
    (row,) = part.rows
    assert len(row) == len(part.columns)
    assert row[:2] == ("2 × 16 × 4 × 64", "einsum")  # there is no GPU
    for cell in row[-2:]:
        off = [float(number) for number in cell.split(", ")]
        assert len(off) == 4
        assert min(off) > 0  # bfloat16 is not exact
        assert max(off) < 0.03


def test_the_largest_difference_of_two_trees():
    one = {"a": np.zeros(3), "b": [np.ones(2)]}
    other = {"a": np.array([0.0, 0.25, 0.0]), "b": [np.array([1.0, 3.0])]}
    assert gpu_jobs.largest(one, other) == 2.0
    assert gpu_jobs.largest(one, one) == 0.0


# ---- the profile ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_tilesize128x128", "convolutions"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma", "attention"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_TNN", "products"),
        ("loop_transpose_fusion_12", "copies and layouts"),
        ("MemcpyD2D", "copies and layouts"),
        ("input_reduce_fusion_3", "reductions"),
        ("loop_add_fusion", "elementwise"),
        ("RngBitGenerator", device_time.REST),
    ],
)
def test_the_kind_of_a_kernel(kernel, kind):
    assert device_time.kind(kernel) == kind


def test_shares_are_those_of_the_kernels_of_devices():
    def named(what, pid, name, **more):
        return {"ph": "M", "name": what, "pid": pid, "args": {"name": name}, **more}

    def took(name, microseconds, pid, tid):
        return {"ph": "X", "name": name, "dur": microseconds, "pid": pid, "tid": tid}

    events = [
        named("process_name", 1, "/device:GPU:0"),
        named("thread_name", 1, "Stream #13(Compute)", tid=7),
        named("thread_name", 1, "XLA Modules", tid=8),
        named("process_name", 2, "/host:CPU"),
        named("thread_name", 2, "Stream of the host", tid=9),
        took("fprop", 30.0, 1, 7),
        took("wgrad", 30.0, 1, 7),
        took("loop_add_fusion", 20.0, 1, 7),
        took("something", 20.0, 1, 7),
        took("jit_step", 100.0, 1, 8),  # encloses the kernels
        took("fprop", 500.0, 2, 9),
    ]
    shares = device_time.of_events(events)
    assert shares["convolutions"] == pytest.approx(0.6)
    assert shares["elementwise"] == pytest.approx(0.2)
    assert shares[device_time.REST] == pytest.approx(0.2)
    assert math.isclose(sum(shares.values()), 1)
    assert device_time.of_events(events[:5]) == {}
