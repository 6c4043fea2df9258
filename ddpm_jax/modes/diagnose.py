"""Why are the samples noise, tinted or blurred? Ordered checks of a trained run."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import captions, data_marks, scoring, trained_run
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import training as build_training
from ddpm_jax.core import arrays, conditions, errors
from ddpm_jax.data import sources
from ddpm_jax.diagnosis import findings, inputs, measure, outputs, page, predictions
from ddpm_jax.metrics import oracle
from ddpm_jax.report import html
from ddpm_jax.runtime import compilation, devices, files
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler

IMAGES = 64  # probed, and sampled
LEVELS = 16  # noise levels
TOLD_IMAGES, TOLD_LEVELS = 16, 5
WALKED = 16  # images whose steps are doubled
MOST_STEPS = 128
TRAINING_IMAGES = 2048  # read, and searched for copies
HELD_OUT = 256
CLOSEST = 8

Checked = Iterator[tuple[findings.Finding, html.Html | None]]


def run(config, workdir) -> None:
    """Judge the run in `workdir`; write diagnosis.html there and change nothing else.

    Raises:
        Refusal: no run, no checkpoint, one that cannot be sampled from, or one of data
            that are no images.
    """
    devices.check()
    saved = trained_run.read(workdir)
    run_dir = saved.run_dir
    run_dir.check_writable()
    build_network.check_kind(config, "diagnosing", workdir)
    build_network.check_no_upsampler(config, "diagnosing")
    build_data.check_pictures(
        saved.facts,
        "--mode=diagnose",
        "see the losses in report.html, or use ddpm_jax.load",
    )
    compilation.enable_cache()
    trained = trained_run.open_run(saved, config)
    used = trained.weights(config.sampling.weights, field="sampling.weights")
    say(f"step {trained.step}, {used.why}; a minute or two for small networks")
    found, shown = [], {}
    for finding, content in checks(trained, used):
        say(f"  {finding.verdict:<12} {finding.name:<11} {finding.said}")
        if finding.remedy:
            say(f"  {'':<12} {'':<11} → {finding.remedy}")
        found.append(finding)
        if content is not None:
            shown[finding.name] = content
    recipe = build_sampling.recipe(config, trained.facts)
    facts = [
        ("step", f"{trained.step:,}"),
        ("weights", used.kind),
        ("sampling", f"{recipe.solver.name}, {recipe.schedule.num_steps:,} steps"),
        ("guidance", f"{config.sampling.guidance_scale:g}"),
        ("seed", str(recipe.seed)),
    ]
    text = page.page(f"Diagnosis of {run_dir.path.name}", found, shown, facts=facts)
    files.write_bytes(run_dir.diagnosis_page, text)
    say(f"page: {run_dir.diagnosis_page}")
    say(findings.conclusion(found)[1])


def checks(trained: trained_run.TrainedRun, used: recipe_lib.Weights) -> Checked:
    """Yield the finding of every check, and its charts and pictures if any."""
    split = load(trained)
    if isinstance(split, str):
        yield from not_checked(split, "data")
        yield from of_process(trained)
        yield from not_checked(NEEDS_DATA, *OF_NETWORK)
        yield of_steps(trained, used, USUAL_SPREAD)
        yield from not_checked(NEEDS_DATA, *OF_SAMPLES)
        return
    yield of_data(trained, split)
    yield from of_process(trained)
    yield from of_network(trained, used, split)
    yield of_steps(trained, used, split.seen.channel_std.mean())
    yield from of_samples(trained, used, split)


def not_checked(why: str, *names: str) -> Checked:
    """Yield the findings of checks that cannot be made."""
    for name in names:
        yield findings.Finding(name, findings.NOT_CHECKED, why), None


# ---- data ----------------------------------------------------------------------------

NEEDS_DATA = "it needs the data of the run"
OF_NETWORK = ("timesteps", "prediction", "denoising", "weights", "clipping")
OF_SAMPLES = ("colour", "detail", "copies")
USUAL_SPREAD = 0.5  # deviation of photographs


class Split(NamedTuple):
    """The data of a run: both splits, what was seen, and what is probed.

    Attributes:
        train, test: data sets.
        seen, held_out: of the training and of the test split.
        images: float32 [n, H, W, C], test images.
        condition: what the network is given beside them, [n, ...] by key.
        real, real_condition: the same of the training split.
    """

    train: sources.Dataset
    test: sources.Dataset
    seen: measure.DataStatistics
    held_out: measure.DataStatistics
    images: np.ndarray
    condition: dict[str, np.ndarray]
    real: np.ndarray
    real_condition: dict[str, np.ndarray]


def load(trained: trained_run.TrainedRun) -> Split | str:
    """Return the data of a run, or the sentence that says why it cannot be had."""
    config, facts = trained.config, trained.facts
    try:
        train, test = (
            captions.dataset(config, facts, split) for split in ("train", "test")
        )
        build_data.check_images(train, facts)
    except errors.Refusal as refusal:
        return str(refusal)
    seen, held_out = (
        measure.statistics(dataset.fetch, len(dataset), limit, facts.levels)
        for dataset, limit in ((train, TRAINING_IMAGES), (test, HELD_OUT))
    )
    batches = []
    for dataset in (test, train):
        batch = dataset.fetch(arrays.spread(len(dataset), IMAGES))
        specs = trained.network.condition_spec
        condition = conditions.selected(specs, batch, dataset.name)
        batches += [batch["image"], condition]
    return Split(train, test, seen, held_out, *batches)


def of_data(trained, split):
    """Check what the network sees."""
    finding = inputs.data(
        split.seen,
        levels=trained.facts.levels,
        same=data_marks.is_same(trained.run_dir, trained.facts, split.train),
    )
    return finding, page.data(split.seen, split.real)


# ---- the process ---------------------------------------------------------------------


def of_process(trained) -> Checked:
    """Check schedule and sampler, neither of which needs the network."""
    config = trained.config
    whole = build_process.schedule(config)
    recipe = build_sampling.recipe(config, trained.facts)
    kept = recipe.schedule
    timesteps = np.asarray(kept.timesteps)
    finding = inputs.schedule(
        whole.alpha_bar, kept.alpha_bar, timesteps, name=config.diffusion.schedule
    )
    yield finding, page.schedule(whole.alpha_bar, kept.alpha_bar, timesteps)
    deviation = measure.exact_chain(recipe, whole, trained.mesh)
    yield (
        inputs.sampler(deviation, method=recipe.solver.name, steps=kept.num_steps),
        None,
    )


# ---- the network ---------------------------------------------------------------------


def of_network(trained, used, split) -> Checked:
    """Check single denoising steps of test images."""
    config = trained.config
    whole = build_process.schedule(config)
    alpha_bar = whole.alpha_bar
    t = arrays.spread(whole.num_steps, LEVELS)
    u = alpha_bar[t] / (1 - alpha_bar[t]) * split.seen.var.mean()
    probe = measure.make_probe(
        whole,
        trained.network.apply,
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        data=oracle.Gaussian(split.seen.mean.reshape(-1), split.seen.var.reshape(-1)),
        mesh=trained.mesh,
        batch_size=sampler.rounded_batch(IMAGES, trained.mesh),
    )
    probed = measure.by_t(probe, used.params, split.images, split.condition, t)
    yield from of_given_t(probe, used.params, split, t, u)
    meant = predictions.prediction(
        u,
        probed.readings,
        probed.errors[measure.STRAIGHT],
        name=config.diffusion.prediction,
    )
    yield meant, None
    yield predictions.denoising(t, u, probed.errors), page.denoising(t, probed)
    if trained.facts.text is not None:
        yield predictions.text(of_text(trained, used, split)), None
    yield of_weights(trained, used, probe, split, t, probed)
    outside = probed.outside.mean(axis=1)
    yield (
        predictions.clipping(t, u, outside, config.sampling.clip),
        page.clipping(t, outside),
    )


def of_given_t(probe, params, split, t, u) -> Checked:
    """Check that the network is best when given the true t."""
    comparable = t[predictions.in_band(u)]
    if len(comparable) < 2:
        yield from not_checked(predictions.NOTHING_COMPARABLE, "timesteps")
        return
    levels = comparable[arrays.spread(len(comparable), TOLD_LEVELS)]
    condition = {key: v[:TOLD_IMAGES] for key, v in split.condition.items()}
    found = measure.by_given_t(
        probe, params, split.images[:TOLD_IMAGES], condition, levels, t
    )
    finding = predictions.noise_level(levels, t, found, int(np.diff(t).max()))
    yield finding, page.noise_level(levels, t, found)


def of_text(trained, used, split) -> dict:
    """Measure how much captions change what is predicted."""
    config = trained.config
    measure_it = scoring.sensitivity_to_text(
        config,
        trained.network,
        images=split.images,
        condition=split.condition,
        seed=config.evaluation.seed,
        mesh=trained.mesh,
        batch_size=sampler.rounded_batch(IMAGES, trained.mesh),
    )
    return measure_it(used.params)


def of_weights(trained, used, probe, split, t, probed):
    """Check the average against the raw weights."""
    name = build_training.ema_name(trained.config)
    if trained.imported or name is None:
        return predictions.only_weights(used.why), None
    others = {"ema": trained.state.params, "raw": trained.state.ema[name]}
    other = measure.by_t(probe, others[used.kind], split.images, split.condition, t)
    errors, other_errors = (p.errors[measure.NETWORK] for p in (probed, other))
    finding = predictions.weights(
        used.kind,
        name=name,
        share=float(trained.state.ema_initial_share[name]),
        used=errors,
        other=other_errors,
    )
    rest = {"ema": "raw", "raw": "ema"}[used.kind]
    return finding, page.weights(t, {used.kind: errors, rest: other_errors})


# ---- sampling and samples ------------------------------------------------------------


def of_steps(trained, used, spread):
    """Check whether more steps would change the samples, in units of `spread`."""
    config, facts = trained.config, trained.facts
    whole = build_process.schedule(config)
    recipe = build_sampling.recipe(config, facts)
    taken = recipe.schedule.num_steps
    largest = min(2 * taken, whole.num_steps, MOST_STEPS)
    counts = [largest // part for part in (8, 4, 2, 1) if largest // part]
    walk = measure.make_walk(recipe, whole, trained.network.apply, trained.mesh)
    count = sampler.rounded_batch(WALKED, trained.mesh)
    specs = trained.network.condition_spec
    condition = recipe.condition_of(np.arange(count), specs)
    condition = {key: condition[key] for key in specs}  # not what a classifier reads
    walked = np.stack([walk(used.params, condition, count, n) for n in counts])
    squares = np.square(np.diff(walked, axis=0))
    changes = np.sqrt(squares.mean(axis=tuple(range(1, squares.ndim))))
    differences = (changes / spread).tolist()
    finding = outputs.steps(counts, differences, taken=taken, whole=whole.num_steps)
    return finding, page.steps(counts, differences, walked)


def of_samples(trained, used, split) -> Checked:
    """Check samples against real images of the same classes."""
    config = trained.config
    recipe = build_sampling.recipe(config, trained.facts)
    if not recipe.transforms:  # a classifier leads to the classes that were asked for
        condition = {k: tuple(v.tolist()) for k, v in split.real_condition.items()}
        recipe = dataclasses.replace(
            recipe, condition=tuple(condition.items()), drawn=(), repeats=1
        )
    count = len(split.real)
    made_by = build_sampling.make_sampler(
        recipe, config, trained.network, trained.mesh, weights=used
    )
    made = made_by.make(
        used.params,
        start=0,
        stop=count,
        batch_size=sampler.rounded_batch(count, trained.mesh),
    ).images
    yield outputs.colour(made, split.real), page.samples(made, split.real)
    yield outputs.detail(made, split.real), None
    yield of_copies(config, split, made)


def of_copies(config, split, made):
    """Check whether samples are training images."""
    if not np.isfinite(made).all():
        return outputs.not_finite("copies"), None
    among, index = split.seen.pooled, split.seen.index
    if config.data.flip:
        mirrored = measure.statistics(
            lambda rows: {"image": split.train.fetch(rows)["image"][:, :, ::-1]},
            len(split.train),
            TRAINING_IMAGES,
            split.train.levels,
        )
        among = np.concatenate([among, mirrored.pooled])
        index = np.concatenate([index, index])
    ours = measure.nearest(measure.pool(made), among)
    theirs = measure.nearest(split.held_out.pooled, among)
    closest = np.argsort(ours.relative, kind="stable")[:CLOSEST]
    pairs = split.train.fetch(index[ours.index[closest]])["image"]
    finding = outputs.memorising(
        ours.relative, theirs.relative, looked_at=len(split.seen.index)
    )
    shown = page.copies(ours.relative, theirs.relative, made[closest], pairs)
    return finding, shown
