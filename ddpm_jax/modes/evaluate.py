"""Scoring a run, or images that are there already: a card for each number."""

import dataclasses
from typing import NamedTuple

from ddpm_jax import config as config_lib
from ddpm_jax.builders import cascade, kinds, low_res, trained_run
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import rules
from ddpm_jax.data import images as images_lib
from ddpm_jax.evaluation import (
    accuracy,
    cards,
    chain_bound,
    copies,
    enlarging,
    feature_pass,
    likelihood,
    prompts,
    sample_scorer,
    sample_sets,
)
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import resize, table
from ddpm_jax.report import run_card
from ddpm_jax.runs import directory
from ddpm_jax.runtime import compilation, devices, distributed
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say


def run(config, workdir) -> None:
    """Score the run in `workdir`, or config.evaluation.samples; write the run's card.

    Args:
        config: evaluation.metric names the metrics.
        workdir: the run; "" to compare images with images.

    Raises:
        Refusal: no run, no checkpoint, or an evaluation that cannot be made.
    """
    score(config, workdir)
    if not workdir:
        return
    run_dir = directory.RunDir.open_existing(workdir)
    card = run_card.write_or_say(run_dir, base=config_lib.base().to_dict())
    if card:
        say(f"card of the run: {card}")


def score(config, workdir) -> None:
    """Score by some metrics; see `run`."""
    names = rules.metric_names(config.evaluation.metric)
    kinds.check_metrics(config, names)
    given = config.evaluation.samples
    sample_sets.check_request(names, given, workdir)
    devices.check()
    saved = run_dir = facts = None
    if workdir:
        saved = trained_run.read(workdir)
        run_dir, facts = saved.run_dir, saved.facts
        run_dir.check_writable()
    # What can be refused is refused before anything is computed.
    if table.ACCURACY in names:
        prepared = accuracy.prepare(config, facts)
        compilation.enable_cache()
        accuracy.score(trained_run.open_run(saved, config), prepared)
        return
    if table.BOUND in names:
        prepared = chain_bound.prepare(config, facts)
        compilation.enable_cache()
        chain_bound.score(trained_run.open_run(saved, config), prepared)
        return
    of_upsampler = enlarging.prepare(config, facts, names)
    of_run = likelihood.prepare(config, facts) if table.BITS in names else None
    of_texts = of_samples = None
    if set(names) & set(table.OF_TEXTS):
        of_texts = prompts.prepare(config, facts)
    if set(names) & table.METRICS.keys():
        of_samples = plan(config, names, run_dir, facts)
    compilation.enable_cache()
    trained = None
    if of_run or of_texts or of_upsampler or not given:
        trained = trained_run.open_run(saved, config)
    if of_run and not likelihood.score(trained, of_run):
        return
    if of_texts and not prompts.score(trained, of_texts, names):
        return
    if of_upsampler and not enlarging.score(trained, of_upsampler):
        return
    if of_samples:
        sample_set = of_samples.files or sample_sets.of_run(trained, of_samples.given)
        mesh = trained.mesh if trained else build_training.mesh(config)
        score_samples(config, sample_set, of_samples.groups, mesh)


class Plan(NamedTuple):
    """Samples to score and by what.

    Attributes:
        files: None where a run is to make them.
        groups: the metrics.
        given: what an upsampler enlarges.
    """

    files: sample_sets.SampleSet | None
    groups: list[feature_pass.Group]
    given: low_res.Given | None = None


def plan(config, names, run_dir, facts) -> Plan:
    """Return what is to be done with samples.

    Raises:
        Refusal: nothing that can be done, as far as headers tell.
    """
    evaluation = config.evaluation
    names = [name for name in names if name in table.METRICS]
    files = given = None
    if evaluation.samples:
        files = sample_sets.of_files(
            evaluation.samples,
            folder=run_dir.evaluation if run_dir else None,
            crop=config.data.crop if run_dir else "",
        )
        distributed.check_alike(
            {"evaluation.samples": files.tag}, "give every host the same files"
        )
    else:
        for name in names:
            build_data.check_pictures(facts, name, sample_scorer.INSTEAD)
        given = cascade.given(config, facts)
        build_sampling.recipe(config, facts, given=given)
        if given is not None:
            given.check_count(evaluation.num_samples, "evaluation.num_samples")
    count = files.count if files else evaluation.num_samples
    for note in table.check_count(names, count):
        say(f"note: {note}")

    def dataset():
        found = build_data.dataset(config, "train")
        build_data.check_images(found, facts)
        return found

    groups = feature_pass.grouped(
        config,
        names,
        shape=files.shape if files else facts.shape,
        dataset=dataset if facts else None,
    )
    return Plan(files, groups, given)


def score_samples(config, sample_set, groups, mesh) -> None:
    """Write the cards of samples that are not there, making the samples if need be."""
    missing = [left for group in groups if (left := unscored(sample_set, group)).names]
    loaded = []
    for group in missing:
        network, notes = group.source.load()
        group.check(network, shape=sample_set.shape, crop=sample_set.crop)
        if network.name == features_lib.INCEPTION:
            notes = [*notes, *resize.notes(sample_set.shape[-1])]
        for note in notes:
            say(f"note: {note}")
        loaded.append((group, network, notes))
    images = sample_set.images() if missing else None
    if images is None:
        return
    with preemption.StopRequest() as stop:
        for group, network, notes in loaded:
            scores = measure(config, sample_set, images, group, network, mesh, stop)
            if scores is None:
                say(f"stopped by {stop.signal_name}: no image is lost")
                say("run the same command to resume")
                return
            write(sample_set, images, group, network, *scores, notes)


def unscored(sample_set, group) -> feature_pass.Group:
    """Return the group without the metrics whose cards are there; print those."""
    paths = card_paths(sample_set, group)
    left = [
        name
        for name in group.names
        if not cards.exist(*(paths[card] for card in table.METRICS[name].cards))
    ]
    return dataclasses.replace(group, names=tuple(left))


def card_paths(sample_set, group) -> dict:
    """Return where the card of each number of a group goes."""
    name = f"{sample_set.tag}-{group.digest}.json"
    return {card: sample_set.folder / f"{card}_{name}" for card in group.cards}


def measure(config, sample_set, images, group, network, mesh, stop):
    """Return what was compared with and the scores, or None if stopped."""
    options = {
        "mesh": mesh,
        "batch_size": config.evaluation.batch_size,
        "should_stop": stop.agreed,
    }
    compared = feature_pass.compared(
        group, network, folder=sample_set.folder, **options
    )
    if compared is None or stop.agreed():
        return None
    say(f"measuring {sample_set.count} images for {', '.join(group.names)} …")
    counter = copies.Counter()
    scores = feature_pass.score(
        group,
        network,
        counter.watched(images.rows(sample_set.count)),
        compared,
        count=sample_set.count,
        **options,
    )
    if scores is None:
        return None
    return compared, [table.qualified(score, counter.notes()) for score in scores]


def write(sample_set, images, group, network, compared, scores, notes) -> None:
    """Write and print the scores of one pass."""
    protocol = {
        **sample_set.protocol,
        "num_samples": sample_set.count,
        "image_shape": sample_set.shape,
        "feature_network": network.name,
        "feature_network_fingerprint": network.fingerprint,
        "resize": network.resize,
    }
    against = {}
    if group.reference:
        against["reference"] = group.reference.name
        against["reference_hash"] = group.reference.hash
    if compared.statistics:
        against["num_reference"] = compared.statistics.num_images
    saturated = images_lib.saturated_share(images.rows(sample_set.count))
    for score in scores:
        compares = table.compares(score.metric)
        path = card_paths(sample_set, group)[score.metric]
        cards.write(
            path,
            metric=score.metric,
            value=score.value,
            unit="",
            standard_error=score.standard_error,
            details={**score.details, "saturated_share": saturated},
            protocol={**protocol, **(against if compares else {}), **score.protocol},
            notes=[*notes, *score.notes],
        )
        for note in score.notes:
            say(f"note: {note}")
        say(f"{score.metric} {cards.measured(score.value, score.standard_error)}")
        say(f"card: {path}")
