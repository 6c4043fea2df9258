"""The bound K of a run of the 2015 paper: request, card, figures."""

from typing import NamedTuple

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import captions, chains, paper_2015
from ddpm_jax.builders import data as build_data
from ddpm_jax.core import arrays
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.data import images as images_lib
from ddpm_jax.evaluation import cards, chain_figures, image_sets
from ddpm_jax.metrics import chain_bound, gaussian_fit, known_laws, table
from ddpm_jax.report import page
from ddpm_jax.runtime import distributed, files, sharding
from ddpm_jax.runtime.cluster import preemption
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import sampler

NAME = table.BOUND
AVERAGED = 64  # examples whose probability is averaged over trajectories
JUDGED = 1000  # samples that known laws judge
FITTED = 20_000  # training images that the Gaussian beside K is fitted to


class Prepared(NamedTuple):
    """The splits, and how many examples of the test split are scored."""

    dataset: dataset_lib.Dataset
    train: dataset_lib.Dataset
    num_images: int


def prepare(config, facts) -> Prepared:
    """Return what is to be scored.

    Raises:
        Refusal: no test data, or other data than the network takes.
    """
    dataset = captions.test_split(config, facts)
    count = build_data.num_test_images(config, len(dataset))
    return Prepared(dataset, build_data.dataset(config, "train"), count)


def score(trained, prepared: Prepared) -> None:
    """Write bound_<tag>.json of a run, and its figures, unless it is there.

    Args:
        trained: the run, on its devices.
        prepared: from `prepare`.
    """
    config = trained.config
    weights = trained.chosen_weights("evaluation.weights")
    path = trained.run_dir.evaluation / f"{NAME}_{_tag(trained, weights, prepared)}"
    path = path.with_name(f"{path.name}.json")
    if cards.exist(path):
        return
    setup = paper_2015.setup(config, trained.facts, trained.network)
    with preemption.StopRequest() as stop:
        terms = _terms(trained, setup, weights, prepared, stop)
        if terms is None:
            say(f"stopped by {stop.signal_name}; run the same command to measure again")
            return
        averaged = _averaged(trained, setup, weights, prepared)
    betas = np.asarray(chains.exact_schedule(config, weights.params).betas)
    made = _samples(trained, weights)
    details = {
        **_of_terms(terms),
        **averaged,
        **_of_law(config, betas, made),
        **_of_gaussian(trained, setup, prepared),
        "by_t": _by_t(terms, betas),
    }
    if distributed.is_first():
        _write(trained, weights, prepared, terms, details, path)
        figures = chain_figures.every(trained, weights.params, made, details)
        for name, picture in figures.items():
            files.write_bytes(path.with_name(f"{path.stem}_{name}.png"), picture)
            say(f"figure: {path.stem}_{name}.png")
        page.write(trained.run_dir, base=config_lib.base().to_dict())
        say(f"they are in {trained.run_dir.report}")


def _tag(trained, weights, prepared) -> str:
    """Return what tells this evaluation from others of the run, for file names."""
    evaluation = trained.config.evaluation
    parts = [weights.kind, f"seed{evaluation.seed}"]
    if evaluation.num_images:
        parts.append(f"n{evaluation.num_images}")
    data = image_sets.hash_of(prepared.dataset, trained.config.data.crop)
    return "-".join([*parts, f"step{trained.step}", cards.short_hash(data)])


def _terms(trained, setup, weights, prepared, stop) -> chain_bound.Terms | None:
    """Return the terms of every scored example, or None if stopped."""
    count, mesh = prepared.num_images, trained.mesh
    size = sampler.rounded_batch(min(trained.config.evaluation.batch_size, count), mesh)
    scorer = chain_bound.make_scorer(setup, mesh)
    num_steps = trained.config.diffusion.num_steps
    say(f"K of {count} test examples at {num_steps - 1} steps; compiling first …")
    parts = []
    for start in range(0, count, size):
        if stop.agreed():
            return None
        batch = _batch(prepared.dataset, start, size, count)
        found = scorer(weights.params, sharding.put_whole(mesh, batch))
        kept = min(size, count - start)
        parts.append([np.asarray(v, np.float64)[..., :kept] for v in found])
        say(f"{start + kept}/{count} examples")
    together = zip(*parts, strict=True)
    return chain_bound.Terms(*(np.concatenate(v, axis=-1) for v in together))


def _batch(dataset, start, size, count):
    index = arrays.padded_range(start, size, count)
    image = dataset.fetch(index)["image"].astype(np.float32)
    return {"image": image, "index": index.astype(np.int32)}


def _averaged(trained, setup, weights, prepared) -> dict:
    """Return the log-probability by importance averaging, with effective numbers."""
    trajectories = trained.config.evaluation.trajectories
    if not trajectories:
        return {}
    count, mesh = min(AVERAGED, prepared.num_images), trained.mesh
    say(f"log p of {count} examples by {trajectories} trajectories each …")
    estimator = chain_bound.make_estimator(setup, mesh, trajectories)
    size = sampler.rounded_batch(count, mesh)
    batch = sharding.put_whole(mesh, _batch(prepared.dataset, 0, size, count))
    found = estimator(weights.params, batch)
    log_p = np.asarray(found.log_probability, np.float64)[:count]
    effective = np.asarray(found.effective, np.float64)[:count]
    return {
        "log_probability": log_p.mean(),
        "log_probability_standard_error": _error(log_p),
        "log_probability_examples": count,
        "trajectories": trajectories,
        "effective_trajectories": effective.mean(),
    }


def _error(values):
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _of_terms(terms) -> dict:
    gain = terms.bound - terms.null
    return {
        "null": float(terms.null.mean()),
        "gain": float(gain.mean()),
        "gain_standard_error": _error(gain),
        "ends": float(terms.ends.mean()),
    }


def _of_law(config, betas, made) -> dict:
    """Return what is known of the data, and how samples compare with it."""
    law = known_laws.LAWS.get(config.data.name)
    if law is None:
        return {}
    if config.model.kind == chains.BINOMIAL:
        ceiling = law.ceiling(betas, config.diffusion.prior_mean)
    else:
        ceiling = law.ceiling(betas[0])
    found = {"ceiling": ceiling, "ceiling_is": law.ceiling_told}
    if law.of_chain is not None:
        found["ceiling_of_this_chain"] = law.of_chain(betas)
    if law.log_likelihood is not None:
        found["log_likelihood_of_the_data"] = law.log_likelihood
    for name, samples in (("x_1", made.states[0]), ("x_0", made.images)):
        for what, value in law.judge(samples[:JUDGED], float(betas[0])).items():
            found[f"{what}_of_{name}"] = value
    return found


def _samples(trained, weights):
    """Return samples with their way there: [1 + S, n, ...] states, x_1 first."""
    config, facts = trained.config, trained.facts
    made_by = paper_2015.make_sampler(
        paper_2015.recipe(config, facts),
        config,
        facts,
        trained.network,
        trained.mesh,
        kept=chain_figures.slices(config.diffusion.num_steps),
    )
    size = sampler.rounded_batch(JUDGED, trained.mesh)
    if images_lib.is_image(facts.shape):
        size = sampler.rounded_batch(chain_figures.IMAGES, trained.mesh)
    say(f"making {size} samples …")
    return made_by.make(weights.params, start=0, stop=size, batch_size=size)


def _of_gaussian(trained, setup, prepared) -> dict:
    """Return the log-likelihood of a full-covariance Gaussian, of images alone."""
    facts = trained.facts
    binary = trained.config.model.kind == chains.BINOMIAL
    if binary or not images_lib.is_image(facts.shape):
        return {}
    splits = []
    for dataset, most in (
        (prepared.train, FITTED),
        (prepared.dataset, prepared.num_images),
    ):
        index = np.arange(min(len(dataset), most))
        data = dataset.fetch(index)["image"]
        uniform = np.random.default_rng(0).random(data.shape)
        splits.append(np.asarray(setup.states.encode(data, uniform), np.float64))
    fitted = gaussian_fit.log_likelihoods(*splits) / setup.unit
    return {
        "gaussian": float(fitted.mean()),
        "gaussian_is": "log-likelihood of a Gaussian of full covariance",
    }


def _by_t(terms, betas) -> dict:
    return {
        "timestep": list(range(len(betas))),
        "kl": terms.kl.mean(axis=1).tolist(),
        "entropy_lower": terms.lower.mean(axis=1).tolist(),
        "entropy_upper": terms.upper.mean(axis=1).tolist(),
        "beta": betas.tolist(),
    }


def _write(trained, weights, prepared, terms, details, path):
    """Write the card and print the result."""
    config, dataset = trained.config, prepared.dataset
    unit = paper_2015.unit(trained.facts)[1]
    bound = terms.bound
    cards.write(
        path,
        metric=NAME,
        value=float(bound.mean()),
        unit=unit,
        standard_error=_error(bound),
        details=details,
        protocol={
            "data": config.data.name,
            "split": "test",
            "num_images": prepared.num_images,
            "data_fingerprint": dataset.fingerprint(),
            "steps": config.diffusion.num_steps,
            "weights": weights.kind,
            "seed": config.evaluation.seed,
            "checkpoint": trained.step,
        },
        notes=["null is the log-probability under the prior, gain is K − null"],
    )
    say(f"K {cards.measured(float(bound.mean()), _error(bound))} {unit}")
    for name, value in details.items():
        if isinstance(value, float):
            say(f"  {name.replace('_', ' ')} {value:.4f}")
    say(f"card: {path}")
