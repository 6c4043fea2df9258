"""All claims, in the order of their pages, and what each needs to be run."""

from benchmarks.claims import (
    claim,
    statements_ddpm,
    statements_guidance,
    statements_improved,
)
from ddpm_jax.core import errors

CLAIMS = {
    one.name: one
    for one in (
        *statements_ddpm.CLAIMS,
        *statements_improved.CLAIMS,
        *statements_guidance.CLAIMS,
    )
}


def chosen(name: str) -> list[claim.Claim]:
    """Return the claims of a name, "all" for all.

    Raises:
        Refusal: there is none of that name.
    """
    if name == "all":
        return list(CLAIMS.values())
    return [errors.choose("claim", CLAIMS, name)]
