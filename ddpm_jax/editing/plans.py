"""What an edit is: a plan of what is made of given pictures, and the making of it.

The modes keep what a plan makes in RUN/edits, Python has it in memory. Both begin
alike:

    given            pictures, from files or arrays
    opened, plan     = planned(make, config, facts, given, opening)
    results          = keep(opened, plan) on disk, or in_memory(opened, plan)
"""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import kinds
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import edit, latents, likeliest
from ddpm_jax.runtime import console
from ddpm_jax.sampling import archive, generation, sampler
from ddpm_jax.sampling import recipe as recipe_lib


class Given(NamedTuple):
    """Pictures that are edited.

    Attributes:
        names: of each, for what is said of it.
        word: of all, for the tag; "" without pictures.
        stored: as samples are stored, [n, H, W, C]; None without pictures.
        holes: bool [n, H, W], True where something is to be made; None where all is.
    """

    names: tuple[str, ...] = ()
    word: str = ""
    stored: np.ndarray | None = None
    holes: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray | None:
        """The pictures as networks take them, float32 in [−1, 1]."""
        return None if self.stored is None else images_lib.from_stored(self.stored)

    @property
    def parts(self) -> dict[str, object]:
        """What a recipe is told of them, see `builders.editing.recipe`."""
        if self.stored is None:
            return {}
        named = {"image": build_editing.word(self.word, self.values)}
        if self.holes is not None:
            named["mask"] = build_editing.fingerprint(self.holes[..., None])[:8]
        return {"given": named, "shape": self.stored.shape[1:]}

    @property
    def count(self) -> int:
        """The number of pictures."""
        return 0 if self.stored is None else len(self.stored)


NOTHING = Given()


class Plan(NamedTuple):
    """What an edit makes, and how.

    Attributes:
        config: of the run, with what the method has settled.
        recipe: of the results.
        wanted: number of results.
        compute: `opened → (arrays by name, latents.Encoded or None)`: what the recipe
            starts from, called where results are missing.
        rows: of results, as many in each.
        results: as samples are stored, where no chain has to make them.
        shown: `opened → [n, H, W, C] as stored`, what results are shown beside; None
            for the given pictures.
    """

    config: object
    recipe: recipe_lib.Recipe
    wanted: int
    compute: Callable[[edit.Opened], tuple[Mapping, latents.Encoded | None]]
    rows: int = 1
    results: np.ndarray | None = None
    shown: Callable[[edit.Opened], np.ndarray] | None = None

    def in_rows(self, results: np.ndarray) -> np.ndarray:
        """Return results [wanted, ...] as [rows, wanted / rows, ...]."""
        return results.reshape(self.rows, -1, *results.shape[1:])


def from_files(paths: Sequence[str], config, saved) -> Given:
    """Return the pictures of files, fitted to a run; see `edit.read_pictures`."""
    if not paths:
        return NOTHING
    return of_pictures(paths, edit.read_pictures(paths, config, saved))


def of_pictures(paths: Sequence[str], pictures) -> Given:
    """Return pictures that were read, `inputs.Picture` of all the paths."""
    return Given(
        tuple(pathlib.Path(picture.name).name for picture in pictures),
        edit.name_of(paths, pictures),
        np.stack([picture.fitted for picture in pictures]),
    )


def from_arrays(pictures, facts) -> Given:
    """Return pictures that are given in memory, [n, H, W, C] or [H, W, C].

    Args:
        pictures: as `Run.sample` returns images; None for none.
        facts: of the run's data.

    Raises:
        Refusal: another shape or type.
    """
    if pictures is None:
        return NOTHING
    pictures = array_of("pictures", pictures)
    pictures = pictures[None] if pictures.ndim == 3 else pictures
    if pictures.shape[1:] != facts.shape or not len(pictures):
        raise errors.Refusal(
            f"pictures of shape {pictures.shape}: give [n, "
            f"{', '.join(map(str, facts.shape))}], as sample() returns them"
        )
    wanted = images_lib.stored_type(facts.levels)
    if pictures.dtype != wanted:
        raise errors.Refusal(
            f"pictures of type {pictures.dtype}: give {wanted}, as sample() returns "
            "them"
        )
    names = tuple(f"picture {number}" for number in range(len(pictures)))
    return Given(names, "python", pictures)


def array_of(name: str, given) -> np.ndarray:
    """Return an argument as an array.

    Raises:
        Refusal: lists of several lengths.
    """
    try:
        return np.asarray(given)
    except ValueError as error:
        raise errors.Refusal(
            f"{name} are of several shapes: give one array, all of one shape"
        ) from error


def planned(
    make: Callable, config, facts, given: Given, opening: Callable
) -> tuple[edit.Opened, Plan]:
    """Return the opened run, and the plan of an edit.

    Nothing is opened before the plan stands; where a class has to be found first, a
    plan with a stand-in for it.

    Args:
        make: `(config, facts, given) → Plan`.
        config: of the run.
        facts: of its data.
        given: the pictures.
        opening: `(config, shape or None) → edit.Opened`, called once.
    """
    shape = None if given.stored is None else given.stored.shape[1:]
    opened = None
    if likeliest.is_asked(config, facts):
        likeliest.check(config, facts, given)
        _check_with_any_class(make, config, facts, given)
        opened = opening(config, shape)
        config = likeliest.settled(opened, config, given)
    plan = make(config, facts, given)
    if opened is None:
        opened = opening(plan.config, shape)
    return opened._replace(config=plan.config), plan


def planned_of_run(
    make: Callable, config, saved, given: Given
) -> tuple[edit.Opened, Plan]:
    """Return the same for a run on disk, as `edit.read_run` leaves it."""
    opening = functools.partial(edit.open_run, saved)
    return planned(make, config, saved.facts, given, opening)


def _check_with_any_class(make, config, facts, given):
    """Refuse what no class permits, before all classes are scored.

    Two are tried: an edit may refuse one that is given for the pictures already.
    """
    for stand_in in likeliest.STAND_INS:
        try:
            with console.quietly():  # the plan that is carried out says it
                make(likeliest.with_classes(config, (stand_in,)), facts, given)
        except errors.Refusal as refusal:
            refused = refusal
        else:
            return
    message = str(refused).replace(stand_in, likeliest.LIKELIEST)
    raise errors.Refusal(message) from refused


def keep(
    opened: edit.Opened, plan: Plan, names: Sequence[str]
) -> archive.SampleStore | None:
    """Make the results of a plan in RUN/edits, or go on making them.

    Args:
        opened: the run.
        plan: of the edit.
        names: of the pictures.

    Returns:
        Their store; None where the making was stopped, and the same command goes on.
    """
    found = {}
    if plan.results is not None:
        return edit.keep(opened, plan.recipe, plan.results)

    def arrays():
        computed, found["encoded"] = plan.compute(opened)
        return computed

    store = edit.make(opened, plan.recipe, arrays, plan.wanted)
    if store is not None:
        latents.write(store, found.get("encoded"), names)
    return store


def in_memory(opened: edit.Opened, plan: Plan) -> np.ndarray:
    """Return the results of a plan, [wanted, H, W, C], as samples are stored."""
    if plan.results is not None:
        return plan.results
    arrays, _ = plan.compute(opened)
    made_by = kinds.sampled(opened.config).make_sampler(
        plan.recipe,
        opened.config,
        opened.facts,
        opened.trained.network,
        opened.trained.mesh,
        weights=opened.weights,
        arrays=arrays,
    )
    size = min(opened.config.sampling.batch_size, plan.wanted)
    parts = generation.batches(
        made_by,
        opened.weights.params,
        start=0,
        stop=plan.wanted,
        batch_size=sampler.rounded_batch(size, made_by.mesh),
    )
    images = np.concatenate([made.images for _, made in parts])
    return images_lib.to_stored(images, opened.facts.levels)
