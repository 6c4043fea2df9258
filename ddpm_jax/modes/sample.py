"""Sampling from a trained run, batch by batch, continued after an interruption."""

from ddpm_jax.builders import class_labels, trained_run
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.data import images as images_lib
from ddpm_jax.runtime import compilation, devices, distributed, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation, sampler

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
    labels = build_sampling.sampling_labels(config, saved.facts)
    # Guidance of scale 0 leaves the classes out.
    if labels is not None and config.sampling.guidance_scale:
        say(f"classes: {class_labels.told(labels, saved.facts.class_names)}")

    store = generation.open_store(saved.run_dir.samples, recipe, weights)
    made_by = sampler.Sampler(recipe, trained.network, trained.mesh)
    wanted, batch_size = config.sampling.num_samples, config.sampling.batch_size
    if generation.generate_until(
        store,
        made_by,
        weights,
        wanted,
        batch_size=batch_size,
        levels=saved.facts.levels,
    ):
        write_grid(store, wanted, labels)


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
