"""Inpainting by a chain of the 2015 paper: r(x) is a delta function on what is known.

Every state of the chain has the known values, of x_0 itself and without noise, as the
paper and its code have it. The result has them exactly; what is made beside them is the
chain's approximation of the conditional law, see `diffusion.r_x`.

Reference: Sohl-Dickstein et al. 2015, section 2.5.
"""

import dataclasses

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.builders import paper_2015
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.editing import edit, labels, plans
from ddpm_jax.sampling.transforms import HOLE, PICTURE

METHOD = "delta"
OF_OTHERS = ("quality", "resamplings", "jump", "likelihood")


def plan(config, facts: DataInfo, given: plans.Given) -> plans.Plan:
    """Return what makes the holes of pictures, editing.variants times each.

    Args:
        config: of the run; editing.* says how.
        facts: of its data.
        given: the pictures, with holes.

    Raises:
        Refusal: settings of other methods, or pictures of another size.
    """
    kind, editing = config.model.kind, config.editing
    if editing.method not in ("", METHOD):
        raise errors.Refusal(
            f"editing.method={editing.method!r} on a run of model.kind={kind!r}: it "
            f"takes {METHOD} alone, a delta function on what is known; give "
            f"--method={METHOD}"
        )
    edit.check_used(config, dict.fromkeys(OF_OTHERS, (False, "a run on a U-Net")))
    if given.stored.shape[1:] != facts.shape:
        height, width = facts.shape[:2]
        raise errors.Refusal(
            f"--keep-size with a picture of {given.stored.shape[1]}x"
            f"{given.stored.shape[2]}: the network of model.kind={kind!r} takes "
            f"{height}x{width} alone; leave out --keep-size"
        )
    labels.of_results(config, facts, given.count)
    arrays = {PICTURE: given.values, HOLE: given.holes[..., None]}
    recipe = build_editing.named(
        paper_2015.recipe(config, facts),
        config,
        "inpaint",
        given=given.parts["given"],
        arrays=arrays,
        resolved={"method": METHOD},
    )
    recipe = dataclasses.replace(recipe, repeats=editing.variants)
    wanted = editing.variants * given.count
    return plans.Plan(config, recipe, wanted, lambda _: (arrays, None), given.count)
