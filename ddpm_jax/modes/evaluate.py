"""Bits per dimension of a trained run on the test split: a card and a plot."""

import functools
import time

from ddpm_jax import builders, generate, runs
from ddpm_jax.core import errors
from ddpm_jax.metrics import bits
from ddpm_jax.report import plots
from ddpm_jax.runtime import compilation, files, preemption, versions
from ddpm_jax.training import progress


def run(config, workdir) -> None:
    """Score the run in `workdir` and write evaluation/bits_per_dim_<tag>.json.

    Raises:
        Refusal: no run, no checkpoint, or an evaluation that cannot be made.
    """
    evaluation = config.evaluation
    compilation.enable_cache()
    trained = runs.open_run(workdir, config)
    dataset = builders.dataset(config, "test")
    num_images = check_num_images(evaluation.num_images, len(dataset))
    params, kind, sentence = trained.weights(evaluation.weights)
    say(f"step {trained.step}, {sentence}")

    schedule = builders.respaced(config, "evaluation")
    scorer = builders.scorer(config, trained.facts, trained.network)
    say(
        f"bits/dim of {num_images} test images at {schedule.num_steps} timesteps; "
        "compiling first …"
    )
    started = time.perf_counter()

    def report(done):
        left = (time.perf_counter() - started) * (num_images - done) / done
        say(f"{done}/{num_images} images  ETA {progress.duration(left)}")

    with preemption.StopRequest() as stop:
        result = bits.evaluate(
            scorer,
            trained.mesh,
            params,
            dataset,
            num_images=num_images,
            batch_size=generate.rounded_batch(
                min(evaluation.batch_size, num_images), trained.mesh
            ),
            conditional=config.model.class_conditional,
            should_stop=lambda: stop.requested,
            on_batch=report,
        )
    if result is None:
        say(f"stopped by {stop.signal_name}; nothing was written")
        return
    write(trained, config, schedule, result, kind)


def check_num_images(asked: int, there: int) -> int:
    """Return how many images to score.

    Raises:
        Refusal: more than there are, or a negative number.
    """
    if not 0 <= asked <= there:
        raise errors.Refusal(
            f"evaluation.num_images={asked}: the test split has {there} images; choose "
            f"1 … {there}, or 0 for all"
        )
    return asked or there


def write(trained, config, schedule, result, kind) -> None:
    """Write the card and the plot, and print the result."""
    evaluation = config.evaluation
    steps = evaluation.respacing or schedule.num_steps
    tag = f"{str(steps).replace(',', '.')}-{kind}-seed{evaluation.seed}"
    tag = f"{tag}-n{result.num_images}-step{trained.step}"
    card = {
        "metric": "bits_per_dim",
        "value": result.total,
        "unit": "bits/dim",
        "standard_error": result.standard_error,
        "prior": result.prior,
        "rate": result.rate,
        "decoder": result.decoder,
        "by_t": {
            "timestep": schedule.timesteps,
            "bits_per_dim": result.vb,
            "x_0_mse": result.x_0_mse,
            "noise_mse": result.noise_mse,
        },
        "protocol": {
            "data": config.data.name,
            "split": "test",
            "num_images": result.num_images,
            "levels": trained.facts.levels,
            "data_fingerprint": trained.facts.fingerprint,
            "steps": schedule.num_steps,
            "respacing": evaluation.respacing,
            "weights": kind,
            "clip": evaluation.clip,
            "seed": evaluation.seed,
            "labels": "true" if config.model.class_conditional else "none",
            "checkpoint": trained.step,
            "dtype": config.model.dtype,
            "versions": versions.versions(),
        },
    }
    path = trained.run_dir.evaluation / f"bits_per_dim_{tag}.json"
    files.write_json(path, card)
    image = plots.bits_by_t(
        schedule.timesteps,
        result.vb,
        total=result.total,
        standard_error=result.standard_error,
        note=f"{config.data.name}, {result.num_images} test images",
    )
    files.write_bytes(path.with_suffix(".png"), image)
    say(
        f"bits/dim {result.total:.4f} ± {result.standard_error:.4f} = prior "
        f"{result.prior:.4f} + rate {result.rate:.4f} + decoder {result.decoder:.4f}"
    )
    say(f"card: {path}")
    say(f"plot: {path.with_suffix('.png')}")


say = functools.partial(print, flush=True)
