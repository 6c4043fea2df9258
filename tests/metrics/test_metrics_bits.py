"""Bits per dimension of a data set against float64, and its independence of batches."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import likelihood as ref_likelihood
from reference import process as ref_process
from reference import reverse as ref_reverse

from ddpm_jax.core import conditions, errors, keys
from ddpm_jax.diffusion import process, schedules
from ddpm_jax.metrics import bits
from ddpm_jax.runtime import sharding

SHAPE, LEVELS, NUM_STEPS, SEED = (4, 4, 1), 17, 6, 5
NUM_IMAGES = 11
BETAS = schedules.make_betas("cosine", NUM_STEPS)
LABELS = {"label": conditions.Spec((), "int32")}


class Images:
    """Random images with labels; remembers what was asked for."""

    name = "random"

    def __init__(self):
        random = np.random.default_rng(0)
        grey = random.integers(0, LEVELS, (NUM_IMAGES + 3, *SHAPE))
        self.image = (grey / 8 - 1).astype(np.float32)
        self.label = random.integers(0, 3, len(grey)).astype(np.int32)
        self.asked = []

    def fetch(self, indices):
        self.asked.append(list(indices))
        return {"image": self.image[indices], "label": self.label[indices]}


def output(params, x, t_seen, condition, xp):
    """A noise prediction that depends on everything it is given."""
    shift = 0
    if condition:
        shift = params["labels"][condition["label"]].reshape(-1, 1, 1, 1)
    time = 0.1 * xp.asarray(t_seen).reshape(-1, 1, 1, 1)
    return xp.tanh(params["scale"] * x + shift + time)


PARAMS = {
    "scale": np.float32(0.7),
    "labels": np.array([-0.5, 0.0, 0.8], np.float32),
}


@functools.cache
def make_scorer(clip=True, seed=SEED):
    scorer = bits.make_scorer(
        process.Schedule.from_betas(BETAS),
        functools.partial(output, xp=jnp),
        prediction="noise",
        variance="fixed_small",
        clip=clip,
        levels=LEVELS,
        seed=seed,
    )
    # LLVM's optimisations would take most of the time of these tests.
    return jax.jit(scorer, compiler_options={"xla_backend_optimization_level": 0})


def make_mesh(shape):
    return sharding.make_mesh(*shape, devices=jax.devices()[: shape[0] * shape[1]])


def score(
    batch_size=4, mesh_shape=(1, 1), scorer=None, dataset=None, sums=None, **options
):
    mesh = make_mesh(mesh_shape)
    return bits.evaluate(
        make_scorer() if scorer is None else scorer,
        mesh,
        jax.device_put(PARAMS, sharding.replicated(mesh)),
        Images() if dataset is None else dataset,
        sums=bits.Sums.empty(NUM_STEPS) if sums is None else sums,
        **{
            "num_images": NUM_IMAGES,
            "batch_size": batch_size,
            "condition_spec": LABELS,
            **options,
        },
    )


def evaluate(*args, **options):
    return score(*args, **options).result()


def truth(num_images=NUM_IMAGES, conditional=True, seed=SEED):
    """The bound of every image in float64, with the same noise."""
    data = Images()
    x_0 = np.float64(data.image[:num_images])
    condition = {"label": data.label[:num_images]} if conditional else {}
    stream = keys.key_for(seed, "evaluate/noise", index=np.arange(num_images))
    draws = [
        np.float64(keys.normal_each(keys.fold_in_each(stream, k), SHAPE))
        for k in range(NUM_STEPS)
    ]
    reference = ref_process.Process(BETAS)

    def predict(x_t, t):
        return ref_reverse.reverse(
            reference,
            output(jax.tree.map(np.float64, PARAMS), x_t, t, condition, np),
            x_t,
            t,
            prediction="noise",
            variance="fixed_small",
            hook=ref_reverse.clip,
        )

    return ref_likelihood.bits_per_dim(reference, predict, x_0, draws, LEVELS)


def check(result, expected):
    total, count = expected["total"], len(expected["total"])
    by_t = expected["vb"].mean(axis=0)
    close = functools.partial(pytest.approx, rel=2e-5)
    assert result.num_images == count
    assert result.total == close(np.mean(total))
    assert result.prior == close(np.mean(expected["prior"]))
    # The rate of progressive coding, DDPM section 4.3, is all but the distortion.
    assert result.rate == close(np.mean(expected["prior"]) + by_t[1:].sum())
    assert result.decoder == close(by_t[0])
    assert result.total == close(result.rate + result.decoder)
    np.testing.assert_allclose(result.vb, by_t, rtol=1e-4)
    for name in ("x_0_mse", "noise_mse"):
        mean = expected[name].mean(axis=0)
        np.testing.assert_allclose(getattr(result, name), mean, rtol=1e-4)
    # √(Σ (x − x̄)² / (n − 1) / n)
    squares = math.fsum((total - math.fsum(total) / count) ** 2)
    assert result.standard_error == pytest.approx(
        math.sqrt(squares / (count - 1) / count), rel=1e-4
    )


# ---- values --------------------------------------------------------------------------


def test_result_equals_float64():
    check(evaluate(), truth())


def test_unconditional_networks_get_no_labels():
    result = evaluate(condition_spec={})
    check(result, truth(conditional=False))
    assert result.total != pytest.approx(truth()["total"].mean(), rel=1e-3)


def test_a_condition_that_the_data_lacks_is_refused():
    specs = {**LABELS, "caption": conditions.Spec((77,), "int32")}
    with pytest.raises(errors.Refusal, match="'caption', and the data 'random' gives"):
        evaluate(condition_spec=specs)


def test_seed_and_clipping_count():
    result = evaluate()
    check(evaluate(scorer=make_scorer(seed=6)), truth(seed=6))
    assert evaluate(scorer=make_scorer(seed=6)).total != result.total
    assert evaluate(scorer=make_scorer(clip=False)).total > result.total + 0.01


def test_one_image_has_no_standard_error():
    result = evaluate(num_images=1)
    assert (result.num_images, result.standard_error) == (1, None)
    assert result.total == pytest.approx(truth(1)["total"][0], rel=2e-5)


# ---- batches and devices -------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "mesh_shape"),
    [(1, (1, 1)), (16, (1, 1)), (8, (8, 1)), (16, (2, 4))],
)
def test_result_does_not_depend_on_batch_size_or_mesh(batch_size, mesh_shape):
    one, other = evaluate(), evaluate(batch_size, mesh_shape)
    for name in ("total", "standard_error", "prior", "rate", "decoder"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6)
    for name in ("vb", "x_0_mse", "noise_mse"):
        # Terms near 0 are what is left of cancelling numbers near 1.
        np.testing.assert_allclose(
            getattr(other, name), getattr(one, name), rtol=1e-6, atol=1e-8
        )
    assert other.num_images == NUM_IMAGES


def test_batches_have_one_size_and_the_padding_is_a_repeat():
    dataset, done = Images(), []
    score(dataset=dataset, on_batch=lambda sums: done.append(sums.count))
    assert dataset.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 10]]
    assert done == [4, 8, 11]


# ---- stopping ------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_request_to_stop_and_going_on(batches):
    done = []
    part = score(on_batch=done.append, should_stop=lambda: len(done) == batches)
    assert part.count == 4 * batches
    assert [sums.count for sums in done] == [4, 8][:batches]
    dataset = Images()
    rest = score(sums=part, dataset=dataset)
    assert dataset.asked[0][0] == 4 * batches
    resumed, whole = rest.result(), evaluate()
    assert resumed.num_images == whole.num_images
    assert resumed.total == pytest.approx(whole.total, rel=1e-12)
    assert resumed.standard_error == pytest.approx(whole.standard_error, rel=1e-12)
    np.testing.assert_allclose(resumed.vb, whole.vb, rtol=1e-12)


def test_nothing_is_scored_twice():
    dataset = Images()
    whole = score()
    assert score(sums=whole, dataset=dataset).count == NUM_IMAGES
    assert dataset.asked == []
