"""Making images until there are N: in memory, or on disk across interruptions."""

from collections.abc import Callable, Iterator

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import archive, sampler, transforms
from ddpm_jax.sampling.recipe import Weights


def batches(
    made_by: sampler.Sampler,
    params,
    *,
    start: int,
    stop: int,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[sampler.Step], None] | None = None,
) -> Iterator[tuple[int, sampler.Made]]:
    """Yield (number of the first image, images) of every batch from `start` to `stop`.

    All images are made here: for archives, grids, scores and from Python.

    Args:
        made_by: the recipe with its network and devices.
        params: parameters on the mesh.
        start, stop: numbers of the first image and of the one after the last.
        batch_size: images made at a time, a multiple of the devices; the last batch is
            padded, so that it compiles nothing.
        should_stop: asked before every batch.
        on_step: see `Sampler.make`.
    """
    while start < stop and not should_stop():
        end = min(start + batch_size, stop)
        yield (
            start,
            made_by.make(
                params, start=start, stop=end, batch_size=batch_size, on_step=on_step
            ),
        )
        start = end


def open_store(folder, recipe, weights: Weights) -> archive.SampleStore:
    """Return the store of a recipe's images below `folder`, new or to be continued.

    Raises:
        Refusal: the folder of that name holds other images.
    """
    return archive.SampleStore(
        folder / recipe.tag(weights),
        recipe.request(weights),
        differences=lambda saved: recipe.differences(saved, weights),
    )


def generate_until(
    store: archive.SampleStore,
    made_by: sampler.Sampler,
    weights: Weights,
    wanted: int,
    *,
    batch_size: int,
    levels: int | None,
) -> bool:
    """Bring the archive of a store to at least `wanted` images.

    What was made before is used. A request to stop is met between two batches. Several
    processes make each batch together; process 0 keeps it.

    Args:
        store: from `open_store`.
        made_by: the recipe with its network and devices.
        weights: to make them with.
        wanted: number of images.
        batch_size: images made at a time.
        levels: of the data, which decide the type that images are kept in.

    Returns:
        Whether all are there; if not, the same command goes on.
    """
    if distributed.from_first(store.is_finished(wanted)):
        say(f"{store.count()} samples exist already: {store.archive}")
        return True
    if not _make_missing(store, made_by, weights, wanted, batch_size, levels):
        return False
    if distributed.is_first():
        store.finish(wanted, _labels(made_by, wanted))
        share = images_lib.saturated_share(store.rows(wanted))
        if share is not None:
            say(f"saturated values (darkest or brightest): {100 * share:.1f} %")
    distributed.barrier("the archive of samples")
    say(f"samples: {store.archive}")
    return True


def _labels(made_by: sampler.Sampler, wanted: int) -> np.ndarray | None:
    """Return the classes of the first images, None where they have none."""
    found = []
    for start in range(0, wanted, archive.ROWS_AT_A_TIME):
        index = np.arange(start, min(start + archive.ROWS_AT_A_TIME, wanted))
        given = made_by.condition_of(index)
        # A classifier guides networks without labels to classes of its own.
        found.append(given.get("label", given.get(transforms.CLASS)))
    return None if found[0] is None else np.concatenate(found)


def _make_missing(store, made_by, weights, wanted, batch_size, levels) -> bool:
    done = distributed.from_first(store.count())
    if done:
        say(f"resuming after {done} of {wanted} images")
    # By all images, not those that are left: a restart compiles the same program.
    batch_size = sampler.rounded_batch(min(batch_size, wanted), made_by.mesh)
    recipe = made_by.recipe
    say(f"sampling with {recipe.summary}; compiling the sampler first …")
    with preemption.StopRequest() as stop:
        parts = batches(
            made_by,
            weights.params,
            start=done,
            stop=wanted,
            batch_size=batch_size,
            should_stop=stop.agreed,
        )
        for start, made in parts:
            store.add(start, images_lib.to_stored(made.images, levels, store.dtype))
            done = start + len(made.images)
            say(f"{done}/{wanted} images")
        stopped = stop.agreed()  # after the last batch too: more may follow
    if stopped:
        say(f"stopped by {stop.signal_name} after {done} of {wanted} images")
        say("run the same command to resume")
    return not stopped
