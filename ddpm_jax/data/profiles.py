"""Colour profiles: which of them would change the colours that are read."""

import functools
import io

import numpy as np

from ddpm_jax.data import content

STEPS = 6  # of each colour in the table that is compared
NOTICED = 6  # of 255: what a profile of sRGB by another hand may differ by
MODES = {"RGB": "RGB", "GRAY": "L"}  # of profiles whose colours are taken as they are


def named(icc: bytes | None) -> str:
    """Return the name of a profile that says other colours than sRGB does, else "".

    Pixels are read as if they were sRGB. A profile that cannot be read counts as none,
    as it does for other programs; that of CMYK is another matter: such files are
    converted, which is said.
    """
    return _named(bytes(icc)) if icc else ""


@functools.lru_cache(maxsize=64)  # one camera or program writes the same into all
def _named(icc):
    from PIL import Image, features

    if not features.check("littlecms2"):
        return ""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = MODES.get(profile.profile.xcolor_space.strip())
        if mode is None:
            return ""
        ramp = np.linspace(0, 255, STEPS).round().astype(np.uint8)
        table = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(1, -1, 3)
        if mode == "L":
            table = np.stack([ramp] * 3, axis=-1)[None]
        given = Image.fromarray(table[..., 0] if mode == "L" else table)
        shown = ImageCms.profileToProfile(
            given, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        name = ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, *content.CONTENT_ERRORS):
        return ""
    changed = np.abs(np.asarray(shown).astype(int) - table).max()
    return (name or "without a name") if changed > NOTICED else ""
