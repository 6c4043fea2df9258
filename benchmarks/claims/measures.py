"""What is measured on a trained run: a name, its settings, and a function."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.claims import arms, gradients, mixture
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import trained_run
from ddpm_jax.config import rules
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import respacing
from ddpm_jax.evaluation import likelihood
from ddpm_jax.sampling import generation

IMAGES = 500  # made for a score
BATCH = 2000  # made at a time, at most
STEPS = (5, 10, 25, 50)  # of chains that are compared
SMALL_STEPS = (5, 10, 25)  # … with the small fixed variance
SKIPPED = (0.1, 0.2, 0.4)  # shares of the chain that are left out
FAST = {"count": 20, "images": 4, "steps": 5, "batches": 3, "batch_size": 4}


class Measure(NamedTuple):
    """One measurement.

    Attributes:
        take: (Subject, **settings) → numbers, or lists of them, by name; of an arm
            where nothing is trained the seed takes the place of the subject.
        settings: of the measurement.
    """

    take: Callable[..., dict]
    settings: dict


class Subject(NamedTuple):
    """What is measured.

    Attributes:
        trained: the run, opened.
        judge: scores what is made: a `quality.Quality`, or a `points.Judge`.
        seed: of the run, and of what is made with it.
        classifier: folder of the classifier of the same seed; "" where none is needed.
    """

    trained: trained_run.TrainedRun
    judge: Any
    seed: int
    classifier: str = ""


def make(subject: Subject, count: int, *, skip=0.0, variance="", **sampling):
    """Return digits, uint8 [count, 8, 8, 1], of the classes in turn, or points.

    Args:
        subject: the run.
        count: of images.
        skip: share of the chain, from its beginning, that is left out: x_T is put in
            the place of the state there. The rest keeps its spacing of steps.
        variance: of the reverse steps, instead of the run's; "" for its own.
        **sampling: fields of config.sampling.
    """
    config = subject.trained.config.copy_and_resolve_references()
    config.sampling.update({"seed": subject.seed, **sampling})
    config.diffusion.variance = variance or config.diffusion.variance
    rules.check_types(config)
    kept = None
    if skip:
        whole = build_process.schedule(config)
        last = round((1 - skip) * whole.num_steps) - 1
        steps = round((1 - skip) * config.sampling.steps)
        kept = respacing.respace_below(whole, steps, last)
    weights = subject.trained.weights("auto", field="sampling.weights")
    made_by = build_sampling.make_sampler(
        build_sampling.recipe(config, subject.trained.facts, kept=kept),
        config,
        subject.trained.network,
        subject.trained.mesh,
        weights=weights,
    )
    parts = generation.batches(
        made_by, weights.params, start=0, stop=count, batch_size=min(BATCH, count)
    )
    made = np.concatenate([part.images for _, part in parts])
    return images_lib.to_stored(made, subject.trained.facts.levels)


def distance(subject: Subject, *, count, **sampling) -> dict:
    """Return proxy_fd of images that are made."""
    made = make(subject, count, **sampling)
    return {"proxy_fd": subject.judge.proxy_fd(made)}


def of_points(subject: Subject, *, count, **sampling) -> dict:
    """Return the energy distance of points that are made."""
    made = make(subject, count, **sampling)
    return {"distance": subject.judge.distance(made)}


def guided(subject: Subject, *, count, guide, scale, **sampling) -> dict:
    """Return the scores of images that are led to their classes.

    Args:
        subject: the run.
        count: of images.
        guide: "free" (classifier-free), "classifier" of the conditional network, or
            "classifier alone" of the same network told of no class.
        scale: of the guide.
        **sampling: other fields of config.sampling.
    """
    if guide == "free":
        sampling["guidance_scale"] = scale
    else:
        sampling |= {"classifier": subject.classifier, "classifier_scale": scale}
    if guide == "classifier alone":
        sampling["guidance_scale"] = 0.0
    made = make(subject, count, **sampling)
    return subject.judge.scores(made, np.arange(count) % 10)


def bits(subject: Subject, *, images, steps) -> dict:
    """Return bits/dim of the first test examples and its parts by t."""
    config = subject.trained.config.copy_and_resolve_references()
    config.evaluation.update({"steps": steps, "batch_size": min(250, images)})
    trained = dataclasses.replace(subject.trained, config=config)
    weights = trained.weights("auto", field="evaluation.weights")
    schedule = build_process.respaced(config, "evaluation")
    prepared = arms.dataset(config, "test"), images, schedule
    found = likelihood.summed(trained, weights, prepared).result()
    return {
        "total": found.total,
        "rate": found.rate,
        "decoder": found.decoder,
        "prior": found.prior,
        "by_t": found.vb.tolist(),
        "rmse": (127.5 * np.sqrt(found.x_0_mse)).tolist(),
    }


def gradient_noise(subject: Subject, *, batches, batch_size) -> dict:
    """Return how noisy the gradients of three objectives are, see `gradients`."""
    return gradients.noise(
        subject.trained, seed=subject.seed, batches=batches, batch_size=batch_size
    )


def _distances(take, key: str, usual: dict) -> dict[str, Measure]:
    """Return the distances of what is made in many ways, by "<key> <way>"."""
    usual = {"method": "ancestral", "steps": 25, **usual}
    found = {"ancestral 200": {"steps": 200}}
    for method in ("ancestral", "ddim"):
        for steps in STEPS:
            found[f"{method} {steps}"] = {"method": method, "steps": steps}
    for steps in SMALL_STEPS:
        found[f"small {steps}"] = {"steps": steps, "variance": "fixed_small"}
    for share in SKIPPED:
        found[f"skip {share:g}"] = {"steps": 50, "skip": share}
    return {
        f"{key} {way}": Measure(take, usual | changed) for way, changed in found.items()
    }


GUIDES = {
    "free": (1.0, 1.5, 2.0, 4.0),
    "classifier": (1.0, 8.0),
    "classifier alone": (1.0, 2.0, 4.0, 8.0),
}


def guided_name(guide: str, scale: float) -> str:
    """Return the name of the measurement of a guide at a scale."""
    return f"guided {guide} {scale:g}"


def _guided() -> dict[str, Measure]:
    usual = {"count": IMAGES, "method": "ddim", "steps": 15}
    return {
        guided_name(guide, scale): Measure(
            guided, usual | {"guide": guide, "scale": scale}
        )
        for guide, scales in GUIDES.items()
        for scale in scales
    }


def laws(seed: int, **settings) -> dict:
    """Return how guided points and the law they are said to follow differ."""
    return mixture.laws(seed, **settings)


def trade(seed: int, **settings) -> dict:
    """Return precision and recall of guided points."""
    return mixture.trade(seed, **settings)


def _in_plane() -> dict[str, Measure]:
    usual = {"count": 2000, "steps": 250}
    return {
        f"{name} {scale:g}": Measure(take, usual | {"scale": scale})
        for name, take in (("laws", laws), ("trade", trade))
        for scale in (1.0, 2.0, 4.0)
    }


MEASURES = {
    "bits": Measure(bits, {"images": 60, "steps": 200}),
    "bits 10": Measure(bits, {"images": 60, "steps": 10}),
    "bits 25": Measure(bits, {"images": 60, "steps": 25}),
    "gradients": Measure(gradient_noise, {"batches": 32, "batch_size": 32}),
    "points bits": Measure(bits, {"images": 500, "steps": 200}),
    "points bits 10": Measure(bits, {"images": 500, "steps": 10}),
    "points bits 25": Measure(bits, {"images": 500, "steps": 25}),
    "points gradients": Measure(gradient_noise, {"batches": 100, "batch_size": 128}),
    **_distances(distance, "fd", {"count": IMAGES}),
    **_distances(of_points, "points", {"count": 2000}),
    **_guided(),
    **_in_plane(),
}


def settings(name: str, *, fast: bool = False) -> dict:
    """Return the settings of a measurement; those of --fast are tiny."""
    usual = MEASURES[name].settings
    return {k: FAST.get(k, v) if fast else v for k, v in usual.items()}
