"""Sampling from a trained run, batch by batch, continued after an interruption."""

from ddpm_jax.builders import class_labels, kinds, trained_run
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.data import images as images_lib
from ddpm_jax.report import sample_plots
from ddpm_jax.runtime import compilation, devices, distributed, files, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation

MAX_GRID_IMAGES = 100


def run(config, workdir) -> None:
    """Make config.sampling.num_samples images from the run in `workdir`.

    Raises:
        Refusal: no run, no checkpoint, or a request that the run cannot meet.
    """
    devices.check()
    saved = trained_run.read(workdir)
    kind = kinds.sampled(config)
    if not kind.makes_images:
        build_network.check_kind(config, "sampling from", workdir)
    saved.run_dir.check_writable()
    recipe = kind.recipe(config, saved.facts)
    compilation.enable_cache()
    trained = trained_run.open_run(saved, config)
    weights = trained.weights(config.sampling.weights, field="sampling.weights")
    say(f"step {weights.step}, {weights.why}")
    classes = build_sampling.classes(config, saved.facts)
    # Guidance of scale 0 leaves the classes out, but for a classifier's.
    if classes is not None and (config.sampling.classifier or recipe.is_conditional):
        say(f"classes: {classes}")
        if remark := class_labels.remark(classes.names):
            say(f"note: {remark}")
    for line in build_sampling.guidance_told(config, saved.imported):
        say(line)
    made_by = kind.make_sampler(
        recipe, config, saved.facts, trained.network, trained.mesh, weights=weights
    )
    store = generation.open_store(saved.run_dir.samples, recipe, weights)
    wanted = build_sampling.num_samples(config, classes)
    batch_size = config.sampling.batch_size
    if generation.generate_until(
        store,
        made_by,
        weights,
        wanted,
        batch_size=batch_size,
        levels=saved.facts.levels,
    ):
        write_grid(store, wanted, classes and classes.in_columns)


def write_grid(store, wanted: int, labels) -> None:
    """Write grid.png of the first samples, and say where it is; process 0 does.

    Samples that are no images make a plot of that name.
    """
    if not distributed.is_first():
        return
    path = store.folder / "grid.png"
    shown = store.first(min(wanted, MAX_GRID_IMAGES))
    if images_lib.is_image(shown.shape[1:]):
        columns = image_grid.columns_for(labels)
        grid = image_grid.grid(images_lib.shown(shown), columns=columns)
        image_grid.write_png(path, grid)
    else:
        shown = store.first(min(wanted, sample_plots.MAX_POINTS))
        values = images_lib.from_stored(shown)
        picture = sample_plots.picture(f"{len(shown)} samples", values)
        files.write_bytes(path, picture)
    say(f"grid:    {path}")
