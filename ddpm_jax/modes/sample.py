"""Sampling from a trained run, batch by batch, continued after an interruption."""

from ddpm_jax.builders import (
    cascade,
    class_labels,
    kinds,
    low_res,
    prompts,
    sample_pictures,
    trained_run,
)
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.runtime import compilation, devices
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation


def run(config, workdir) -> None:
    """Make config.sampling.num_samples images from the run in `workdir`.

    Raises:
        Refusal: no run, no checkpoint, or a request that the run cannot meet.
    """
    devices.check()
    saved = trained_run.read(workdir)
    kind = kinds.sampled(config)
    if kind is not kinds.CHAIN:
        build_network.check_kind(config, "sampling from", workdir)
    saved.run_dir.check_writable()
    compilation.enable_cache()
    given = cascade.given(config, saved.facts)
    texts = prompts.of(config, saved.facts, given)
    recipe = kind.recipe(config, saved.facts, given=given, texts=texts)
    classes = build_sampling.classes(config, saved.facts, given=given)
    wanted = build_sampling.num_samples(config, classes)
    if given is not None:
        given.check_count(wanted)
    trained = trained_run.open_run(saved, config)
    weights = trained.chosen_weights("sampling.weights")
    # Guidance of scale 0 leaves the classes out, but for a classifier's.
    if classes is not None and (config.sampling.classifier or recipe.is_conditional):
        say(f"classes: {classes}")
        if remark := class_labels.remark(classes.names):
            say(f"note: {remark}")
    lines = [] if texts is None or not recipe.is_conditional else texts.summary()
    lines += build_sampling.guidance_lines(config, saved.facts, saved.imported)
    for line in lines:
        say(line)
    if given is not None:
        for line in low_res.described(config, given):
            say(line)
        if not given.source.make(wanted):
            return
    made_by = kind.make_sampler(
        recipe,
        config,
        saved.facts,
        trained.network,
        trained.mesh,
        weights=weights,
        given=given,
    )
    store = generation.open_store(saved.run_dir.samples, recipe, weights)
    batch_size = config.sampling.batch_size
    if generation.generate_until(
        store,
        made_by,
        weights,
        wanted,
        batch_size=batch_size,
        levels=saved.facts.levels,
    ):
        columns = classes and classes.in_columns
        shown = texts.texts if texts and recipe.is_conditional else ()
        sample_pictures.write_grid(store, wanted, columns, shown)
        if given is not None:
            sample_pictures.write_preview(store, given, wanted)
