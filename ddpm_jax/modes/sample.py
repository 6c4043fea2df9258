"""Sampling from a trained run, batch by batch, continued after an interruption."""

from ddpm_jax import builders, making, runs
from ddpm_jax.runtime import (
    compilation,
    devices,
    distributed,
    pictures,
    rundir,
    samples,
)
from ddpm_jax.runtime.console import say

MAX_GRID_IMAGES = 100


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

    request = making.request_of(config, labels, kind, trained.step)
    store = samples.SampleStore(
        run_dir.samples / making.tag_of(config, request), request
    )
    wanted = config.sampling.num_samples
    batch_size = config.sampling.batch_size
    if making.make_archive(
        trained, recipe, params, labels, store, wanted, batch_size=batch_size
    ):
        write_grid(store, wanted, labels)


def write_grid(store, wanted: int, labels) -> None:
    """Write grid.png of the first images, and say where it is; process 0 does."""
    if not distributed.is_first():
        return
    shown = store.first(min(wanted, MAX_GRID_IMAGES))
    grid = pictures.grid(shown, columns=pictures.columns_for(labels))
    pictures.write_png(store.folder / "grid.png", grid)
    say(f"grid:    {store.folder / 'grid.png'}")
