"""The images that a config asks of a run: what decides them, and making them."""

import zlib

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import sampler as sampler_lib

MAX_NAMED_LABELS = 10


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


def make_archive(
    trained, recipe, params, labels, store, wanted: int, *, batch_size: int
) -> bool:
    """Bring the archive of a store to at least `wanted` images.

    What was made before is used. A request to stop is met between two batches. Several
    processes make each batch together; process 0 keeps it.

    Args:
        trained: the run, on its devices.
        recipe: from `build_sampling.recipe`.
        params: parameters on the mesh.
        labels: labels to cycle through, or None.
        store: a `runtime.samples.SampleStore`.
        wanted: number of images.
        batch_size: images made at a time.

    Returns:
        Whether all are there; if not, the same command goes on.
    """
    if distributed.from_first(store.is_finished(wanted)):
        say(f"{store.count()} samples are there already: {store.archive}")
        return True
    if not _make_missing(trained, recipe, params, labels, store, wanted, batch_size):
        return False
    of_images = None
    if labels is not None:
        of_images = sampler_lib.labels_of(labels, np.arange(wanted))
    if distributed.is_first():
        store.finish(wanted, of_images)
    distributed.barrier("the archive of samples")
    say(f"samples: {store.archive}")
    return True


def _make_missing(trained, recipe, params, labels, store, wanted, batch_size) -> bool:
    done = distributed.from_first(store.count())
    if done:
        say(f"going on after {done} of {wanted} images")
    batch_size = sampler_lib.rounded_batch(min(batch_size, wanted), trained.mesh)
    sampler = sampler_lib.make_sampler(recipe, trained.network.apply)
    say(f"sampling {recipe.schedule.num_steps} steps; compiling the sampler first …")
    with preemption.StopRequest() as stop:
        # It is asked after the last batch too: more may follow what is made here.
        while not (stopped := stop.agreed()) and done < wanted:
            start, done = done, min(done + batch_size, wanted)
            made = sampler_lib.images(
                sampler,
                trained.mesh,
                params,
                start=start,
                stop=done,
                batch_size=batch_size,
                labels=labels,
            )
            levels = trained.facts.levels
            store.add(start, images_lib.to_stored(made, levels, store.dtype))
            say(f"{done}/{wanted} images")
    if stopped:
        say(f"stopped by {stop.signal_name} after {done} of {wanted} images")
        say("the same command goes on from there")
    return not stopped
