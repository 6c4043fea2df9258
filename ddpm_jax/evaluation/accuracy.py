"""Accuracy of a classifier's run by noise level: request, card."""

from typing import NamedTuple

from ddpm_jax.builders import captions
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import process as build_process
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.evaluation import cards, image_sets
from ddpm_jax.metrics import accuracy, table
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import sampler

NAME = table.ACCURACY


class Prepared(NamedTuple):
    """The test split and how many of its images to score."""

    dataset: dataset_lib.Dataset
    num_images: int


def prepare(config, facts) -> Prepared:
    """Return what is to be scored.

    Raises:
        Refusal: no test images, or others than the network takes.
    """
    dataset = captions.test_split(config, facts)
    return Prepared(dataset, build_data.num_test_images(config, len(dataset)))


def score(trained, prepared: Prepared) -> None:
    """Write accuracy_<tag>.json of a run unless it is there.

    Args:
        trained: the run, on its devices.
        prepared: from `prepare`.
    """
    config, dataset = trained.config, prepared.dataset
    evaluation = config.evaluation
    weights = trained.chosen_weights("evaluation.weights")
    path = trained.run_dir.evaluation / f"{NAME}_{_tag(trained, weights, dataset)}.json"
    if cards.exist(path):
        return
    schedule = build_process.schedule(config)
    timesteps = accuracy.levels(schedule.num_steps)
    count, mesh = prepared.num_images, trained.mesh
    say(f"accuracy of {count} test images at {len(timesteps)} timesteps; compiling …")
    scorer = accuracy.make_scorer(
        schedule, trained.network.apply, timesteps, seed=evaluation.seed, mesh=mesh
    )
    with preemption.StopRequest() as stop:
        result = accuracy.evaluate(
            scorer,
            mesh,
            weights.params,
            dataset,
            timesteps=timesteps,
            num_images=count,
            batch_size=sampler.rounded_batch(min(evaluation.batch_size, count), mesh),
            should_stop=stop.agreed,
            on_batch=lambda done: say(f"{done}/{count} images"),
        )
    if result is None:
        say(f"stopped by {stop.signal_name}; run the same command to measure again")
        return
    write(trained, dataset, result, weights.kind, path)


def _tag(trained, weights, dataset) -> str:
    """Return what tells this evaluation from others of the run, for file names."""
    evaluation = trained.config.evaluation
    parts = [weights.kind, f"seed{evaluation.seed}"]
    if evaluation.num_images:
        parts.append(f"n{evaluation.num_images}")
    data = image_sets.hash_of(dataset, trained.config.data.crop)
    return "-".join([*parts, f"step{trained.step}", cards.short_hash(data)])


def write(trained, dataset, result: accuracy.Result, kind: str, path) -> None:
    """Write the card and print the result."""
    config = trained.config
    by_t = {name: values.tolist() for name, values in result.by_t.items()}
    cards.write(
        path,
        metric=NAME,
        value=result.mean,
        unit="",
        standard_error=result.standard_error,
        details={
            "clean": result.clean,
            "clean_standard_error": result.clean_error,
            "by_t": {
                "timestep": result.timesteps.tolist(),
                **by_t,
                "standard_error": result.error_by_t.tolist(),
            },
        },
        protocol={
            "data": config.data.name,
            "split": "test",
            "num_images": result.num_images,
            "num_classes": trained.facts.num_classes,
            "data_fingerprint": dataset.fingerprint(),
            "image_shape": dataset.shape,
            "crop": image_sets.crop_of(config.data.crop),
            "timesteps": len(result.timesteps),
            "weights": kind,
            "seed": config.evaluation.seed,
            "checkpoint": trained.step,
            "guides": config.model.guides,
            "dtype": config.model.dtype,
        },
        notes=["the mean over timesteps that lie evenly on 0 … T−1"],
    )
    for t, share, error in zip(
        result.timesteps, by_t["accuracy"], result.error_by_t, strict=True
    ):
        say(f"  t {t:>5}  {cards.measured(share, error)}")
    say(
        f"accuracy {cards.measured(result.mean, result.standard_error)} over all t, "
        f"{cards.measured(result.clean['accuracy'], result.clean_error)} without noise"
    )
    say(f"card: {path}")
