"""Sampling from a trained run, batch by batch, continued after an interruption."""

import zlib

import numpy as np

from ddpm_jax import builders, generate, runs
from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import (
    compilation,
    devices,
    pictures,
    preemption,
    rundir,
    samples,
)
from ddpm_jax.runtime.console import say

MAX_GRID_IMAGES = 100
MAX_NAMED_LABELS = 10


def run(config, workdir) -> None:
    """Make config.sampling.num_samples images from the run in `workdir`.

    Raises:
        Refusal: no run, no checkpoint, or a request that the run cannot meet.
    """
    devices.check()
    run_dir = rundir.RunDir.open_existing(workdir)
    run_dir.check_writable()
    _, facts = runs.read(run_dir)
    recipe = builders.recipe(config, facts)
    labels = builders.sampling_labels(config, facts)
    compilation.enable_cache()
    trained = runs.open_run(workdir, config, say=say)
    params, kind, sentence = trained.weights(
        config.sampling.weights, field="sampling.weights"
    )
    say(f"step {trained.step}, {sentence}")

    request = request_of(config, labels, kind, trained.step)
    store = samples.SampleStore(run_dir.samples / tag_of(config, request), request)
    wanted = config.sampling.num_samples
    if store.is_finished(wanted):
        say(f"{store.count()} samples are there already: {store.archive}")
        write_grid(store, wanted, labels)
        return
    if make_missing(config, trained, recipe, params, labels, store):
        of_images = None
        if labels is not None:
            of_images = generate.labels_of(labels, np.arange(wanted))
        store.finish(wanted, of_images)
        say(f"samples: {store.archive}")
        write_grid(store, wanted, labels)


def make_missing(config, trained, recipe, params, labels, store) -> bool:
    """Make the images that the store lacks; return whether all are there."""
    wanted, done = config.sampling.num_samples, store.count()
    if done:
        say(f"going on after {done} of {wanted} images")
    batch_size = generate.rounded_batch(
        min(config.sampling.batch_size, wanted), trained.mesh
    )
    sampler = generate.make_sampler(recipe, trained.network.apply)
    say(f"sampling {recipe.schedule.num_steps} steps; compiling the sampler first …")
    with preemption.StopRequest() as stop:
        for start in range(done, wanted, batch_size):
            if stop.requested:
                say(f"stopped by {stop.signal_name} after {start} of {wanted} images")
                say("the same command goes on from there")
                return False
            made = generate.images(
                sampler,
                trained.mesh,
                params,
                start=start,
                stop=min(start + batch_size, wanted),
                batch_size=batch_size,
                labels=labels,
            )
            store.add(start, images_lib.to_uint8(made))
            say(f"{min(start + batch_size, wanted)}/{wanted} images")
    return True


def write_grid(store, wanted: int, labels) -> None:
    """Write grid.png of the first images, and say where it is."""
    shown = store.first(min(wanted, MAX_GRID_IMAGES))
    grid = pictures.grid(shown, columns=pictures.columns_for(labels))
    pictures.write_png(store.folder / "grid.png", grid)
    say(f"grid:    {store.folder / 'grid.png'}")


def request_of(config, labels, kind: str, step: int) -> dict:
    """Return everything that decides image i, as it is kept beside the images."""
    sampling = config.sampling
    return {
        "method": sampling.method,
        "steps": sampling.steps or config.diffusion.num_steps,
        "respacing": sampling.respacing,
        "eta": sampling.eta,
        "weights": kind,
        "guidance_scale": sampling.guidance_scale,
        "labels": labels,
        "clip": sampling.clip,
        "dynamic_threshold": sampling.dynamic_threshold,
        "seed": sampling.seed,
        "checkpoint": step,
    }


def tag_of(config, request: dict) -> str:
    """Return the name of the folder, e.g. "ddim-50-ema-guidance2-seed0-step3000".

    What is left at its usual value is not named; the request tells the rest apart.
    """
    sampling = config.sampling
    steps = str(request["steps"])
    if sampling.respacing:
        steps = "respacing" + sampling.respacing.replace(",", ".")
    parts = [sampling.method, steps]
    if sampling.eta:
        parts.append(f"eta{sampling.eta:g}")
    parts += [request["weights"], f"guidance{sampling.guidance_scale:g}"]
    if sampling.labels:
        parts.append(f"labels{_short(request['labels'])}")
    if not sampling.clip:
        parts.append("noclip")
    if sampling.dynamic_threshold:
        parts.append(f"threshold{sampling.dynamic_threshold:g}")
    return "-".join([*parts, f"seed{sampling.seed}", f"step{request['checkpoint']}"])


def _short(labels) -> str:
    """Return "3.7" for a few labels, a checksum for many."""
    text = ".".join(str(label) for label in labels)
    if len(labels) > MAX_NAMED_LABELS:
        return f"{zlib.crc32(text.encode()):08x}"
    return text
