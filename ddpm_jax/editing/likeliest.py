"""The class of a given picture by the network's own loss, where it is asked for.

The class under which the network predicts noise best is the likeliest: the loss is the
bound on −log p(x_0 | class), weighted (Li et al. 2023, "Your diffusion model is
secretly a zero-shot classifier"). All classes and pictures see the same pairs of t and
noise, so that most of the scatter cancels in the difference of two classes, and the
answer for a picture does not depend on others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.builders import process as build_process
from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import process, reverse
from ddpm_jax.runtime import sharding
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import sampler

LIKELIEST = "likeliest"  # of sampling.labels and editing.image_labels
PAIRS = 64  # of t and noise
FIRST, KEPT = 16, 10  # pairs for every class, and the classes that see all pairs
STAND_INS = ("index:0", "index:1")  # for a class that is not found yet
SURE = 2.0  # standard errors between the best two


class Found(NamedTuple):
    """Classes of n pictures.

    Attributes:
        labels: int [n], of the smallest loss.
        others: int [n], of the second smallest.
        losses: float [n, 2], of both: mean squared errors of the noise.
        scores: float [n], how many standard errors lie between them.
    """

    labels: np.ndarray
    others: np.ndarray
    losses: np.ndarray
    scores: np.ndarray


def is_asked(config, facts) -> bool:
    """Return whether a class is to be found; a class of that name goes first."""
    return bool(_fields(config)) and LIKELIEST not in facts.class_names


def check(config, facts, given) -> None:
    """Refuse to look for classes where the network cannot tell them.

    Args:
        config: of the run.
        facts: of its data.
        given: the pictures, see `plans.Given`.

    Raises:
        Refusal: no pictures, pictures with holes, or a network without classes, or with
            one alone.
    """
    field = ".".join(_fields(config)[0])
    if given.stored is None or given.holes is not None:
        what = "pictures with holes" if given.count else "no picture"
        raise errors.Refusal(
            f"{field}={LIKELIEST} with {what}: the likeliest class is that of a whole "
            "picture; name the class"
        )
    if not config.model.class_conditional:
        raise errors.Refusal(
            f"{field}={LIKELIEST} on a run without classes: its network does not tell "
            "them apart; name the class, or leave it out"
        )
    if len(facts.class_names) < 2:
        raise errors.Refusal(
            f"{field}={LIKELIEST} on a run with one class, {facts.class_names[0]}: "
            "name it"
        )


def settled(opened, config, given):
    """Return the config with the classes that were found, and say which they are.

    Args:
        opened: the run, `edit.Opened`.
        config: of the run; it asks for them.
        given: the pictures.
    """
    found = of_pictures(
        opened.trained.network,
        opened.trained.mesh,
        opened.weights.params,
        config,
        given.values,
        num_classes=len(opened.facts.class_names),
    )
    tell(found, given.names, opened.facts.class_names)
    return with_classes(config, tuple(f"index:{label}" for label in found.labels))


def with_classes(config, classes: tuple[str, ...]):
    """Return the config with classes, such as "index:3", where it asks for them."""
    config = config.copy_and_resolve_references()
    for section, name in _fields(config):
        config[section][name] = classes
    return config


def tell(found: Found, names: Sequence[str], classes: Sequence[str]) -> None:
    """Say the class of each picture, and where it is not sure."""
    for name, one, other, losses, score in zip(names, *found, strict=True):
        second = classes[other] if score >= SURE else f"{classes[other]}, not surely"
        say(
            f"{name}: likeliest class {classes[one]} (squared error of the noise "
            f"{losses[0]:.4g}; next {second}: {losses[1]:.4g})"
        )


def of_pictures(
    network, mesh, params, config, pictures: np.ndarray, *, num_classes: int
) -> Found:
    """Return the likeliest class of each picture.

    Every class is tried on `FIRST` pairs, and the best `KEPT` on all `PAIRS`, whose t
    lie evenly over the process.

    Args:
        network: reads the condition "label".
        mesh: devices to share each batch.
        params: parameters on the mesh.
        config: of the run, for the process and what the output means.
        pictures: float32 [n, H, W, C] in [−1, 1].
        num_classes: 2 or more.
    """
    loss = _Losses(network, mesh, params, config, pictures)
    order = np.random.default_rng(0).permutation(PAIRS)  # each part spans all t
    count = len(pictures)
    every = np.tile(np.arange(num_classes), (count, 1))
    first = loss(every, order[:FIRST])
    kept = np.argsort(first.mean(-1), axis=1, kind="stable")[:, :KEPT]
    rest = loss(kept, order[FIRST:])
    seen = np.take_along_axis(first, kept[..., None], axis=1)
    errors_of = np.concatenate([seen, rest], axis=-1)  # [n, kept, PAIRS]
    best = np.argsort(errors_of.mean(-1), axis=1, kind="stable")[:, :2]
    two = np.take_along_axis(errors_of, best[..., None], axis=1)
    gaps = two[:, 1] - two[:, 0]
    scatter = gaps.std(axis=1, ddof=1) / np.sqrt(PAIRS)
    scores = gaps.mean(1) / np.maximum(scatter, np.finfo(float).tiny)
    labels, others = np.take_along_axis(kept, best, axis=1).T
    return Found(labels, others, two.mean(-1), scores)


class _Losses:
    """Squared errors of the noise, of any pictures, classes and pairs."""

    def __init__(self, network, mesh, params, config, pictures):
        unread = sorted(network.condition_spec.keys() - {"label"})
        if unread:
            raise errors.Refusal(
                f"{LIKELIEST} on a network that reads {unread[0]!r} too: name the class"
            )
        schedule = build_process.schedule(config)
        self._mesh, self._params, self._pictures = mesh, params, pictures
        self._size = sampler.rounded_batch(config.sampling.batch_size, mesh)
        self._t = ((np.arange(PAIRS) + 0.5) * schedule.num_steps / PAIRS).astype(int)
        shape = pictures.shape[1:]
        tables = process.tables(schedule)

        @jax.jit
        def program(params, rows):
            picture, label, pair, t = rows
            stream = keys.key_for(0, "edit/likeliest", index=pair)
            noise = process.GAUSSIAN.noise_each(stream, shape)
            denoise = reverse.denoiser(
                tables,
                lambda x_t, t_seen: network.apply(
                    params, x_t, t_seen, network.prepare(params, {"label": label})
                ),
                prediction=config.diffusion.prediction,
                variance=config.diffusion.variance,
            )
            x_t = process.q_sample(tables, picture, t, noise)
            gap = denoise(x_t, t).noise - noise
            return jnp.mean(gap**2, axis=tuple(range(1, gap.ndim)))

        self._program = program

    def __call__(self, classes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Return the errors [n, c, len(pairs)] under classes [n, c]."""
        wanted = (*classes.shape, len(pairs))
        picture, place, pair = (i.reshape(-1) for i in np.indices(wanted))
        label, pair = classes[picture, place].astype(np.int32), pairs[pair]
        found = []
        for start in range(0, len(picture), self._size):
            chosen = np.arange(start, start + self._size)
            chosen = np.minimum(chosen, len(picture) - 1)  # the rest is padding
            rows = (
                self._pictures[picture[chosen]],
                label[chosen],
                pair[chosen].astype(np.int32),
                self._t[pair[chosen]].astype(np.int32),
            )
            rows = sharding.put_whole(self._mesh, rows)
            found.append(sharding.to_host(self._program(self._params, rows)))
        whole = np.concatenate(found)[: len(picture)]
        return whole.reshape(wanted).astype(np.float64)


def _fields(config) -> list[tuple[str, str]]:
    """Return (section, field) of what asks for the likeliest class."""
    places = (("sampling", "labels"), ("editing", "image_labels"))
    return [(s, f) for s, f in places if tuple(config[s][f]) == (LIKELIEST,)]
