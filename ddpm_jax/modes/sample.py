"""Sampling from a trained run, batch by batch, continued after an interruption."""

import functools

from ddpm_jax import builders, generate, observer, runs
from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import (
    compilation,
    pictures,
    preemption,
    rundir,
    samples,
)

MAX_GRID_IMAGES = 100


def run(config, workdir) -> None:
    """Make config.sampling.num_samples images from the run in `workdir`.

    Raises:
        Refusal: no run, no checkpoint, or a request that the run cannot meet.
    """
    _, facts = runs.read(rundir.RunDir.open_existing(workdir))
    recipe = builders.recipe(config, facts)
    labels = builders.sampling_labels(config, facts)

    compilation.enable_cache()
    trained = runs.open_run(workdir, config)
    for bad_step, reason in trained.skipped:
        say(f"checkpoint {bad_step} was not used: {reason}")
    params, kind, sentence = trained.weights(config.sampling.weights)
    say(f"step {trained.step}, {sentence}")

    request = request_of(config, labels, kind, trained.step)
    folder = trained.run_dir.samples / tag_of(request)
    store = samples.SampleStore(folder, request)
    wanted = config.sampling.num_samples
    if store.is_finished(wanted):
        say(f"{wanted} samples are there already: {folder}")
        return
    done = store.count()
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
                say(f"stopped by {stop.signal_name} after {start} of {wanted} images; ")
                say("the same command goes on from there")
                return
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
        finish(store, wanted, labels)


def finish(store, wanted, labels) -> None:
    """Write samples.npz and grid.png, and say where they are."""
    index = range(wanted)
    store.finish(
        wanted, None if labels is None else [labels[i % len(labels)] for i in index]
    )
    shown = store.first(min(wanted, MAX_GRID_IMAGES))
    grid = pictures.grid(shown, columns=observer.grid_columns(labels))
    pictures.write_png(store.folder / "grid.png", grid)
    say(f"samples: {store.archive}")
    say(f"grid:    {store.folder / 'grid.png'}")


def request_of(config, labels, kind: str, step: int) -> dict:
    """Return everything that decides image i, as it is kept beside the images."""
    sampling = config.sampling
    return {
        "method": sampling.method,
        "steps": sampling.respacing or sampling.steps or config.diffusion.num_steps,
        "eta": sampling.eta,
        "weights": kind,
        "guidance_scale": sampling.guidance_scale,
        "labels": labels,
        "clip": sampling.clip,
        "dynamic_threshold": sampling.dynamic_threshold,
        "seed": sampling.seed,
        "checkpoint": step,
    }


def tag_of(request: dict) -> str:
    """Return the name of the folder, e.g. "ddim-50-ema-guidance2-seed0-step3000"."""
    parts = [
        request["method"],
        str(request["steps"]).replace(",", "."),
        request["weights"],
        f"guidance{request['guidance_scale']:g}",
        f"seed{request['seed']}",
        f"step{request['checkpoint']}",
    ]
    if request["eta"]:
        parts.insert(2, f"eta{request['eta']:g}")
    return "-".join(parts)


say = functools.partial(print, flush=True)
