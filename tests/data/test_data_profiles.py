"""Colour profiles that change what is read, told; those that do not, not."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from ddpm_jax.data import decoding, files, profiles, survey

# Primaries as they stand in the published profiles, adapted to D50: X, Y, Z.
SRGB = (
    (0.43607, 0.22249, 0.01392),
    (0.38515, 0.71687, 0.09708),
    (0.14307, 0.06061, 0.7141),
)
ADOBE = (
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
)
P3 = (
    (0.51512, 0.2412, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.1571, 0.06657, 0.78407),
)
D50 = (0.9642, 1.0, 0.8249)

pytestmark = pytest.mark.skipif(
    not features.check("littlecms2"), reason="Pillow without LittleCMS"
)


def fixed(value):
    return struct.pack(">i", round(value * 65536))


def profile(name, gamma, primaries=None):
    """The bytes of an ICC profile, version 2: a matrix and curves, or a grey curve."""
    curve = b"curv" + struct.pack(">IIH2x", 0, 1, round(gamma * 256))

    def xyz(value):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, value))

    text = name.encode() + b"\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz(D50)}
    if primaries:
        for colour, value in zip(b"rgb", primaries, strict=True):
            tags[bytes([colour]) + b"XYZ"] = xyz(value)
            tags[bytes([colour]) + b"TRC"] = curve
    else:
        tags[b"kTRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    space = b"RGB " if primaries else b"GRAY"
    head = struct.pack(
        ">I4sI4s4s4s12x4s",
        start + len(body),
        b"none",
        0x02100000,
        b"mntr",
        space,
        b"XYZ ",
        b"acsp",
    )
    head = head.ljust(68, b"\0") + b"".join(map(fixed, D50))
    return head.ljust(128, b"\0") + table + body


OF_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHANGING = {
    "Adobe RGB": profile("Adobe RGB", 2.2, ADOBE),
    "Display P3": profile("Display P3", 2.2, P3),
    "Linear": profile("Linear", 1.0, SRGB),
    "Old Mac": profile("Old Mac", 1.8, SRGB),
    "Grey 1.0": profile("Grey 1.0", 1.0),
}
HARMLESS = {
    "none": None,
    "empty": b"",
    "damaged": b"x" * 200,
    "sRGB": OF_SRGB,
    "like sRGB": profile("like sRGB", 2.2, SRGB),
    "grey": profile("grey", 2.2),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_profile_that_changes_colours_is_named(name):
    assert profiles.named(CHANGING[name]) == name


@pytest.mark.parametrize("name", HARMLESS)
def test_a_profile_that_changes_nothing_is_not(name):
    assert profiles.named(HARMLESS[name]) == ""


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", ["Adobe RGB", "sRGB"])
def test_it_is_said_for_every_format_and_pixels_stay(form, name, tmp_path):
    pixels = np.full((8, 8, 3), (200, 60, 30), np.uint8)
    for i in range(3):
        file = io.BytesIO()
        icc = {**CHANGING, **HARMLESS}[name]
        Image.fromarray(pixels).save(file, form, icc_profile=icc, quality=100)
        (tmp_path / f"{i}.{form}").write_bytes(file.getvalue())
    read = decoding.decode(file.getvalue())
    np.testing.assert_allclose(read.astype(int), pixels, atol=4)
    said = []
    survey.survey(files.open_images(tmp_path), said.append)
    told = [line for line in said if "profile" in line]
    assert len(told) == (name in CHANGING)
    assert all("Adobe RGB" in line and "3 images" in line for line in told)
