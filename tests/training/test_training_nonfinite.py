"""Steps that are not finite: when they are noticed, what follows, what is written."""

import functools
import json
import math

import jax
import numpy as np
import optax
import pytest
import small_training as small

from ddpm_jax.core import errors
from ddpm_jax.models import unet
from ddpm_jax.runs import directory
from ddpm_jax.training import blocks, nonfinite

# ---- blocks --------------------------------------------------------------------------


def unet_shapes():
    """The parameters of a U-Net of two levels, all of different sizes."""
    network = unet.unet(
        image_size=(8, 8),
        in_channels=1,
        out_channels=2,
        channels=4,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(4,),
        num_heads=2,
        norm_groups=2,
        num_classes=3,
    )
    return network.shapes


def test_blocks_of_a_unet():
    names = blocks.block_names(unet_shapes())
    embeddings = {"label_embedding", "time_embedding"}
    ends = {"conv_in", "conv_out", "norm_out"}
    middle = {f"middle/{part}" for part in ("block_1", "attention", "block_2")}
    levels = {"down/0", "down/1", "up/0", "up/1"}
    assert set(names) == embeddings | ends | middle | levels
    assert len(names) == len(set(names))


def test_norms_of_blocks():
    """Each leaf belongs to the one block that its path begins with."""
    random = np.random.default_rng(0)
    tree = jax.tree.map(
        lambda s: np.float32(random.normal(size=s.shape)), unet_shapes()
    )
    squares = dict.fromkeys(blocks.block_names(tree), 0.0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(part.key for part in path)
        (block,) = [b for b in squares if f"{name}/".startswith(f"{b}/")]
        squares[block] += np.sum(np.float64(leaf) ** 2)
    norms, whole = jax.jit(blocks.norms)(tree)
    assert norms.shape == (len(squares),)
    np.testing.assert_allclose(norms, np.sqrt([*squares.values()]), rtol=1e-5)
    np.testing.assert_allclose(whole, math.sqrt(sum(squares.values())), rtol=1e-5)


# ---- noticing and deciding -----------------------------------------------------------


class OnDevice:
    """A metric still on the device: reading it is noticed."""

    def __init__(self, value):
        self.value, self.was_read = value, False

    def __array__(self, dtype=None, copy=None):
        self.was_read = True
        return np.array(self.value, dtype)


def metrics_of(steps):
    """Metrics of a step for each letter: g(ood) or b(ad)."""
    return [
        {"finite": OnDevice(np.bool_(letter == "g")), "loss": OnDevice(np.float32(n))}
        for n, letter in enumerate(steps, start=1)
    ]


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_looks_at_one_step_a_few_late(lag):
    """The device runs ahead by `lag` steps, and the host waits for no later one."""
    watch = nonfinite.NonFiniteSteps(limit=100, lag=lag)
    letters = "gbggbbgbbb"
    metrics = metrics_of(letters)
    found = []
    for step, values in enumerate(metrics, start=1):
        new = watch.add(step, values)
        found += new
        looked_at = max(step - lag, 0)
        assert [m["finite"].was_read for m in metrics] == [
            number <= looked_at for number in range(1, len(metrics) + 1)
        ]
        assert all(bad.step == looked_at for bad in new)
    found += watch.drain()
    assert [bad.step for bad in found] == [2, 5, 6, 8, 9, 10]
    assert all(type(bad.metrics["loss"]) is np.ndarray for bad in found)
    assert [float(bad.metrics["loss"]) for bad in found] == [2, 5, 6, 8, 9, 10]
    read = "".join("b" if values["loss"].was_read else "g" for values in metrics)
    assert read == letters  # nothing else of a good step
    assert watch.drain() == []


@pytest.mark.parametrize("rolled_back", [False, True])
@pytest.mark.parametrize(
    ("steps", "limit", "too_many"),
    [
        ("", 1, False),
        ("g", 1, False),
        ("b", 1, True),
        ("bbgbbgbb", 3, False),
        ("ggbbb", 3, True),
        ("bgbgbbb", 3, True),
        ("bbbg", 3, True),  # known at the third, whatever comes while it is found out
    ],
)
def test_verdict(steps, limit, too_many, rolled_back):
    expected = "go on"
    if too_many:
        expected = "stop" if rolled_back else "roll back"
    for lag in (0, 2, 50):
        watch = nonfinite.NonFiniteSteps(limit, lag=lag, rolled_back=rolled_back)
        for step, values in enumerate(metrics_of(steps), start=1):
            watch.add(step, values)
        watch.drain()
        assert watch.verdict == expected


def test_verdict_comes_with_the_step_that_decides():
    watch = nonfinite.NonFiniteSteps(2, lag=1)
    verdicts = []
    for step, values in enumerate(metrics_of("gbbggg"), start=1):
        watch.add(step, values)
        verdicts.append(watch.verdict)
    assert verdicts == ["go on"] * 3 + ["roll back"] * 3
    assert "step 2, 3 " in watch.reason


def test_refusal_names_the_steps_and_what_to_do():
    watch = nonfinite.NonFiniteSteps(3, lag=0, rolled_back=True)
    for step, values in enumerate(metrics_of("gggbbb"), start=41):
        watch.add(step, values)
    refusal = watch.refusal()
    assert isinstance(refusal, errors.Refusal)
    for part in ("44, 45, 46", "after rolling back", "train.learning_rate", "crashes/"):
        assert part in str(refusal)


# ---- the record ----------------------------------------------------------------------

IDS = 1000 + np.arange(small.BATCH)


def touchy_apply(params, x, t, condition, *, dropout_keys=None):
    """A perceptron plus 0·√root: finite, with the gradient 0·∞ where root is 0."""
    output = small.apply(params["network"], x, t, condition, dropout_keys=dropout_keys)
    return output + 0 * jax.numpy.sqrt(params["root"])


@functools.cache
def touchy_step():
    optimizer = optax.adam(1e-3)
    params = {"network": small.make_params(), "root": np.float32(1)}
    step = small.make_step(
        optimizer=optimizer,
        network=touchy_apply,
        learning_rate=lambda update: 0.25,
        microbatches=2,
    )
    return small.make_state(params, optimizer=optimizer), small.compiled(step)


def poisoned(kind):
    """Return (state, batch) of a step that goes wrong in a certain place."""
    state, batch = touchy_step()[0], small.make_batch()
    if kind == "two images":
        batch["image"][[5, 12], 0, 0] = np.nan
    elif kind == "all images":
        batch["image"][:] = np.inf
    elif kind == "weights":
        network = {**state.params["network"], "out": np.full((64, 128), np.nan)}
        state = state.replace(params={**state.params, "network": network})
    elif kind == "gradient":
        state = state.replace(params={**state.params, "root": np.float32(0)})
    elif kind == "update":
        adam, *rest = state.opt_state
        adam = adam._replace(mu=jax.tree.map(lambda m: m + np.inf, adam.mu))
        state = state.replace(opt_state=(adam, *rest))
    return state, batch


def record_of(kind, labels=True):
    """Return the record of such a step, the batch's labels, and the step's metrics."""
    state, batch = poisoned(kind)
    after, metrics = touchy_step()[1](state, batch)
    watch = nonfinite.NonFiniteSteps(3, lag=0)
    (bad,) = watch.add(7, metrics)
    names = blocks.block_names(after.params)
    record = nonfinite.crash_record(
        bad,
        block_names=names,
        image_ids=IDS,
        condition={"label": batch["label"]} if labels else {},
        param_norms=jax.device_get(blocks.norms(after.params)[0]),
        versions={"jax": "1.2.3"},
        command="python -m ddpm_jax.main --once-more",
    )
    return record, batch, metrics


def test_record_of_two_bad_images(tmp_path):
    record, batch, metrics = record_of("two images")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["step"] == 7
    assert record["loss"] == record["grad_norm"] == "nan"
    assert record["learning_rate"] == 0.25
    assert record["command"].endswith("--once-more")
    assert record["versions"] == {"jax": "1.2.3"}
    # Image by image what the step drew, the bad ones first and the others in order.
    order = [5, 12, *[row for row in range(small.BATCH) if row not in (5, 12)]]
    t, losses = np.array(metrics["t"]), np.array(metrics["example_loss"])
    assert [image["id"] for image in record["images"]] == [1000 + row for row in order]
    for image, row in zip(record["images"], order, strict=True):
        assert image["t"] == t[row]
        assert image["label"] == batch["label"][row]
        if row in (5, 12):
            assert image["loss"] == "nan"
        else:
            assert image["loss"] == losses[row]
    for part in ("2 of 16", f"1005 at t {t[5]}", f"1012 at t {t[12]}"):
        assert part in record["explanation"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("all images", "the loss of every image is not finite"),
        ("weights", "the weights of network are not finite"),
        ("gradient", "in 1 of 2 blocks, the first being root"),
        ("update", "loss and gradient are finite but the update is not"),
    ],
)
def test_record_says_where_it_began(kind, told):
    record, _, _ = record_of(kind, labels=False)
    assert told in record["explanation"]
    assert all("label" not in image for image in record["images"])
    bad = {
        quantity: [n for n, v in record["blocks"].items() if type(v[quantity]) is str]
        for quantity in ("gradient_norm", "parameter_norm")
    }
    assert bad["parameter_norm"] == (["network"] if kind == "weights" else [])
    first = {"gradient": "root", "update": None}.get(kind, "network")
    assert record["first_bad_block"] == first
    assert bad["gradient_norm"][:1] == ([first] if first else [])
    ends = record["images"][0], record["images"][-1]
    is_bad = kind in ("all images", "weights")
    assert [type(image["loss"]) is str for image in ends] == [is_bad, is_bad]


def test_record_holds_the_norms_of_the_blocks():
    record, _, metrics = record_of("update")
    params = touchy_step()[0].params["network"]
    expected = math.sqrt(sum(np.sum(np.float64(p) ** 2) for p in params.values()))
    norms = record["blocks"]
    assert list(norms) == ["network", "root"]
    assert norms["network"]["parameter_norm"] == pytest.approx(expected, rel=1e-5)
    assert norms["root"]["parameter_norm"] == 1
    both = [norms[name]["gradient_norm"] for name in norms]
    assert math.hypot(*both) == pytest.approx(float(metrics["grad_norm"]), rel=1e-6)


# ---- files ---------------------------------------------------------------------------


def test_records_are_never_overwritten(tmp_path):
    run = directory.RunDir.create(tmp_path / "run")
    assert run.crashes == run.path / "crashes"
    paths = [run.write_crash(step, {"n": n}) for n, step in enumerate([7, 8, 7, 7])]
    names = ["step_7.json", "step_8.json", "step_7_2.json", "step_7_3.json"]
    assert [path.name for path in paths] == names
    for number, path in enumerate(paths):
        assert path.parent == run.crashes
        assert json.loads(path.read_text()) == {"n": number}


def test_twenty_records_are_enough(tmp_path):
    run = directory.RunDir.create(tmp_path / "run")
    written = [run.write_crash(step // 2, {}) for step in range(25)]
    assert [path is None for path in written] == [False] * 20 + [True] * 5
    assert {path.name for path in run.crashes.iterdir()} == {
        path.name for path in written[:20]
    }
