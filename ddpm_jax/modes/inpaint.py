"""Making a part of a picture anew, with the rest as it is."""

import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.data import inputs
from ddpm_jax.editing import edit, inpainting, plans
from ddpm_jax.metrics import seam
from ddpm_jax.report import edit_pictures
from ddpm_jax.runtime import distributed, image_grid
from ddpm_jax.runtime.console import say


def run(config, workdir, image, mask) -> None:
    """Fill the holes of pictures, editing.variants times each.

    Args:
        config: of the run; editing.* says how.
        workdir: the run.
        image: files of the pictures.
        mask: files of the masks, white where something is to be made: one for all, or
            one for each picture.

    Raises:
        Refusal: pictures, masks or settings that do not fit.
    """
    saved = edit.read_run(config, workdir, "inpaint")
    pictures = edit.read_pictures(image, config, saved)
    holes = read_holes(config, pictures, mask)
    given = plans.of_pictures(image, pictures)
    opened, plan = plans.planned_of_run(
        inpainting.plan,
        config,
        saved,
        inpainting.with_holes(given, [hole.fitted for hole in holes]),
    )
    for line in inpainting.summary(config, saved):
        say(line)
    store = plans.keep(opened, plan, given.names)
    if store is None or not distributed.is_first():
        return
    say_fit(store.first(plan.wanted), pictures, holes)
    edit.write_pictures(
        store,
        plan.wanted,
        lambda results: edit_pictures.inpainted(
            [p.fitted for p in pictures], [h.fitted for h in holes], results
        ),
    )
    if config.editing.paste:
        paste(store, plan.wanted, pictures, holes)


def read_holes(config, pictures, mask) -> list[inputs.Hole]:
    """Return the hole of each picture, and say what is to be made."""
    if len(mask) > 1 and len(mask) != len(pictures):
        raise errors.Refusal(
            f"{len(mask)} masks for {len(pictures)} pictures: give one for all, or one "
            "for each"
        )
    masks = list(mask) if len(mask) > 1 else [*mask, ""][:1] * len(pictures)
    holes = []
    for picture, path in zip(pictures, masks, strict=True):
        hole = inputs.read_hole(
            picture,
            mask=path,
            box=tuple(config.editing.box),
            invert=config.editing.invert,
        )
        distributed.check_alike(
            {f"the hole of {picture.name}": build_editing.fingerprint(hole.fitted)},
            "give every host the same mask",
        )
        for line in hole.remarks:
            say(line)
        holes.append(hole)
    return holes


# ---- what came out -------------------------------------------------------------------


def say_fit(results, pictures, holes) -> None:
    """Say how the results fit to what was given."""
    variants = len(results) // len(pictures)
    known = np.repeat([~hole.fitted for hole in holes], variants, axis=0)
    given = np.repeat([p.fitted for p in pictures], variants, axis=0)
    apart = np.abs(results.astype(np.int64) - given.astype(np.int64))[known]
    say(f"known-pixel error {apart.max()}")
    index = seam.seam_index(images_lib.from_stored(results), ~known)
    of_given = seam.seam_index(images_lib.from_stored(given), ~known)
    say(f"seam index {index:.2f} (1 is no seam; the given pictures: {of_given:.2f})")


def paste(store, wanted, pictures, holes) -> None:
    """Write the given pictures at their own size, with the results in their holes."""
    results = store.first(wanted)
    variants = wanted // len(pictures)
    for number, image in enumerate(results):
        picture, hole = pictures[number // variants], holes[number // variants]
        whole = inputs.pasted(picture, hole, image)
        path = store.folder / "pasted" / f"{number:04d}.png"
        image_grid.write_png(path, images_lib.shown(whole))
    say(f"pasted:  {store.folder / 'pasted'}")
