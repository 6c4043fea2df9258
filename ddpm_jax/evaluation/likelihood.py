"""Bits per dimension of a run: resumed after an interruption, card, plots."""

import io
import pathlib
import time

import numpy as np

from ddpm_jax.builders import captions, scoring
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.evaluation import (
    cards,
    image_sets,
    rate_distortion,
)
from ddpm_jax.metrics import bits, table
from ddpm_jax.report import plots
from ddpm_jax.runtime import distributed, files
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import sampler
from ddpm_jax.training import progress

INSTEAD = "leave it out, and compare validation losses"


def prepare(config, facts):
    """Return the test split, how many of its images to score, and the process.

    Raises:
        Refusal: an evaluation that cannot be made.
    """
    build_network.check_kind(config, "scoring")
    build_data.check_grey(facts, table.BITS, INSTEAD)
    dataset = captions.test_split(config, facts)
    num_images = build_data.num_test_images(config, len(dataset))
    return dataset, num_images, build_process.respaced(config, "evaluation")


def score(trained, prepared) -> bool:
    """Write bits_per_dim_<tag>.json of a run unless it is there.

    Args:
        trained: the run, on its devices.
        prepared: from `prepare`.

    Returns:
        Whether to go on; False after a request to stop.
    """
    dataset, num_images, schedule = prepared
    weights = trained.chosen_weights("evaluation.weights")
    card_path = path_of(trained, dataset, weights.kind)
    if cards.exist(card_path):
        return True
    partial = Partial(card_path.with_suffix(".partial.npz"), schedule.num_steps)
    before = partial.read()
    distributed.check_alike(
        {"the number of images scored so far": before.count},
        "give a --workdir on a disk that all hosts share",
    )
    if before.count:
        say(f"resuming after {before.count} of {num_images} images")
    say(
        f"bits/dim of {num_images} test images at {schedule.num_steps} timesteps; "
        "compiling first …"
    )
    started = time.perf_counter()

    def on_batch(sums):
        partial.write(sums)
        rate = (sums.count - before.count) / (time.perf_counter() - started)
        left = progress.duration((num_images - sums.count) / rate)
        say(f"{sums.count}/{num_images} images  ETA {left}")

    with preemption.StopRequest() as stop:
        sums = summed(
            trained,
            weights,
            prepared,
            sums=before,
            should_stop=stop.agreed,
            on_batch=on_batch,
        )
        stopped = stop.agreed()  # perhaps in the last batch, and more may follow
    if sums.count == num_images:
        write(trained, dataset, schedule, sums.result(), weights.kind, card_path)
        partial.remove()
    if stopped:
        say(f"stopped by {stop.signal_name} after {sums.count} of {num_images} images")
        say("run the same command to resume")
    return not stopped


def summed(trained, weights, prepared, *, sums=None, **options) -> bits.Sums:
    """Return the sums of the scores of test images; nothing is written.

    Args:
        trained: the run, on its devices.
        weights: that are scored.
        prepared: from `prepare`.
        sums: of the images that were scored before; None for none.
        **options: see `bits.evaluate`.
    """
    dataset, num_images, schedule = prepared
    config = trained.config
    return bits.evaluate(
        scoring.scorer(config, trained.facts, trained.network),
        trained.mesh,
        weights.params,
        dataset,
        sums=bits.Sums.empty(schedule.num_steps) if sums is None else sums,
        num_images=num_images,
        batch_size=sampler.rounded_batch(
            min(config.evaluation.batch_size, num_images), trained.mesh
        ),
        condition_spec=trained.network.condition_spec,
        **options,
    )


def path_of(trained, dataset, kind: str) -> pathlib.Path:
    """Return where the card of an evaluation is, or will be.

    Args:
        trained: the run.
        dataset: that is scored.
        kind: of the weights.
    """
    crop = trained.config.data.crop
    data = cards.short_hash(image_sets.hash_of(dataset, crop))
    name = f"bits_per_dim_{tag_of(trained, kind)}-{data}.json"
    return trained.run_dir.evaluation / name


class Partial:
    """The sums of an evaluation under way, so that stopping it loses nothing."""

    def __init__(self, path: pathlib.Path, num_steps: int):
        self._path = path
        self._num_steps = num_steps

    def read(self) -> bits.Sums:
        """Return the sums of an interrupted evaluation, or those of no image."""
        if not self._path.exists():
            return bits.Sums.empty(self._num_steps)
        with np.load(self._path, allow_pickle=False) as saved:
            return bits.Sums(**saved)

    def write(self, sums: bits.Sums) -> None:
        """Replace the file."""
        buffer = io.BytesIO()
        np.savez(buffer, total=sums.total, prior=sums.prior, by_t=sums.by_t)
        files.write_bytes(self._path, buffer.getvalue())

    def remove(self) -> None:
        """Drop the file once the card is written."""
        if distributed.is_first():
            self._path.unlink(missing_ok=True)


def tag_of(trained, kind: str) -> str:
    """Return what tells this evaluation from others of the run, for file names."""
    evaluation = trained.config.evaluation
    steps = evaluation.steps or trained.config.diffusion.num_steps
    if evaluation.respacing:
        steps = "respacing" + evaluation.respacing.replace(",", ".")
    parts = [str(steps), kind, f"seed{evaluation.seed}"]
    if evaluation.num_images:
        parts.append(f"n{evaluation.num_images}")
    if not evaluation.clip:
        parts.append("noclip")
    return "-".join([*parts, f"step{trained.step}"])


def write(trained, dataset, schedule, result, kind, path) -> None:
    """Write the card and the plots, and print the result."""
    config = trained.config
    evaluation = config.evaluation
    curve = rate_distortion.curve(result)
    cards.write(
        path,
        metric="bits_per_dim",
        value=result.total,
        unit="bits/dim",
        standard_error=result.standard_error,
        details={
            "prior": result.prior,
            "rate": result.rate,
            "decoder": result.decoder,
            "by_t": rate_distortion.by_t(result, schedule.timesteps),
            "rate_distortion": {
                "timestep": schedule.timesteps,
                "rate": curve.rate,
                "distortion": curve.distortion,
            },
        },
        protocol={
            "data": config.data.name,
            "split": "test",
            "num_images": result.num_images,
            "levels": trained.facts.levels,
            "data_fingerprint": dataset.fingerprint(),
            "image_shape": dataset.shape,
            "crop": image_sets.crop_of(config.data.crop),
            "steps": schedule.num_steps,
            "respacing": evaluation.respacing,
            "weights": kind,
            "clip": evaluation.clip,
            "seed": evaluation.seed,
            "labels": "true" if config.model.class_conditional else "none",
            "checkpoint": trained.step,
            "dtype": config.model.dtype,
        },
        notes=[],
    )
    value = cards.measured(result.total, result.standard_error)
    title = f"{value} bits/dim, {config.data.name}, {result.num_images} test images"
    plot = path.with_suffix(".png")
    image = plots.bits_by_t(
        schedule.timesteps, result.vb, prior=result.prior, title=title
    )
    files.write_bytes(plot, image)
    curve_plot = path.with_name(f"{path.stem}_rate_distortion.png")
    files.write_bytes(curve_plot, rate_distortion.plot(curve, title=title))
    say(
        f"bits/dim {value} = rate {result.rate:.4f} (prior {result.prior:.2g}) "
        f"+ decoder {result.decoder:.4f}"
    )
    say(f"card: {path}")
    say(f"plots: {plot}, {curve_plot.name}")
