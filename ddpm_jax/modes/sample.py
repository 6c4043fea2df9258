"""Sampling from a trained run, batch by batch, continued after an interruption."""

from ddpm_jax.builders import class_labels, prompts, trained_run
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import compilation, devices, distributed, image_grid
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
    build_network.check_kind(config, "sampling from", workdir)
    saved.run_dir.check_writable()
    recipe = build_sampling.recipe(config, saved.facts)
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
    texts = prompts.of(config, saved.facts)
    told = [] if texts is None or not recipe.is_conditional else texts.told()
    for line in [*told, *build_sampling.guidance_told(config, saved.imported)]:
        say(line)
    made_by = build_sampling.make_sampler(
        recipe, config, trained.network, trained.mesh, weights=weights
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
        in_columns = classes.in_columns if classes else texts and texts.texts
        write_grid(store, wanted, in_columns)


def write_grid(store, wanted: int, labels) -> None:
    """Write grid.png of the first images, and say where it is; process 0 does.

    Samples that are no images make none.
    """
    if not distributed.is_first():
        return
    shown = store.first(min(wanted, MAX_GRID_IMAGES))
    if not images_lib.is_image(shown.shape[1:]):
        say(
            f"no grid: samples of the shape {list(shown.shape[1:])} are no images; "
            f"arr_0 of {store.archive.name} holds them"
        )
        return
    shown = images_lib.shown(shown)
    grid = image_grid.grid(shown, columns=image_grid.columns_for(labels))
    image_grid.write_png(store.folder / "grid.png", grid)
    say(f"grid:    {store.folder / 'grid.png'}")
