import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from ddpm_jax.data import decoding

RGBA = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
RGB = RGBA[..., :3]


def saved(image, form="PNG", **options):
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, form, **options)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def facts(data):
    one = decoding.describe(data)
    return one.format, one.mode, one.channels, one.bits, one.alpha


def deep_png():
    """A 16-bit RGB PNG of 2×1 pixels, by the PNG specification; Pillow writes none."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0, 1000, 65535, 256, 512, 768)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_lossless_colours_arrive_as_they_are(form):
    data = saved(RGB, form)
    assert facts(data) == (form, "RGB", 3, 8, False)
    np.testing.assert_array_equal(decoding.decode(data), RGB)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_colours_arrive_as_pillow_decodes_them(form):
    data = saved(RGB, form)
    assert facts(data) == (form, "RGB", 3, 8, False)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decoding.decode(data), expected)


def test_other_modes():
    palette = Image.fromarray(RGB).quantize(8)
    assert facts(saved(palette)) == ("PNG", "P", 3, 8, False)
    np.testing.assert_array_equal(
        decoding.decode(saved(palette)), np.asarray(palette.convert("RGB"))
    )
    assert facts(saved(palette, "GIF")) == ("GIF", "P", 3, 8, False)
    assert facts(saved(palette, transparency=0)) == ("PNG", "P", 4, 8, True)
    assert facts(saved(RGBA)) == ("PNG", "RGBA", 4, 8, True)
    np.testing.assert_array_equal(decoding.decode(saved(RGBA)), RGBA)
    grey = saved(RGBA[..., 0])
    assert facts(grey) == ("PNG", "L", 1, 8, False)
    np.testing.assert_array_equal(decoding.decode(grey), RGBA[..., :1])
    black_or_white = Image.fromarray(RGBA[..., 0] > 128)
    assert facts(saved(black_or_white)) == ("PNG", "1", 1, 8, False)
    assert set(np.unique(decoding.decode(saved(black_or_white)))) == {0, 255}


def test_cmyk_becomes_rgb():
    flat = np.full((8, 8, 4), [0, 255, 255, 0], np.uint8)  # cyan none: red
    data = saved(Image.fromarray(flat, "CMYK"), "JPEG")
    assert facts(data) == ("JPEG", "CMYK", 3, 8, False)
    np.testing.assert_allclose(
        decoding.decode(data).astype(int), np.broadcast_to([255, 0, 0], (8, 8, 3)),
        atol=3,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_loses_nothing(form):
    grey = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 109
    data = saved(grey, form)
    assert facts(data)[2:] == (1, 16, False)
    decoded = decoding.decode(data)
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded[..., 0], grey)


def test_16_bit_colours_confess_that_they_are_read_as_8():
    one = decoding.describe(deep_png())
    assert (one.bits, one.stored_bits, one.channels) == (8, 16, 3)
    assert decoding.decode(deep_png()).shape == (1, 2, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_images_are_upright(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(RGB, form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    decoded = decoding.decode(data)
    np.testing.assert_array_equal(decoded, expected)
    one = decoding.describe(data)
    assert (one.height, one.width, one.channels) == decoded.shape
    assert one.orientation == orientation


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGBA[..., 0], RGBA[..., :1]),
        (np.repeat(RGBA, 2, axis=2), np.repeat(RGBA, 2, axis=2)),
        (RGBA.astype(np.uint16) * 257, RGBA.astype(np.uint16) * 257),
        ((RGBA / 255).astype(np.float32), RGBA.astype(np.uint16) * 257),
        (RGBA.astype(">u2"), RGBA.astype(np.uint16)),
    ],
)
def test_arrays(array, expected):
    decoded = decoding.decode(npy(array))
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)
    one = decoding.describe(npy(array))
    assert (one.height, one.width, one.channels) == expected.shape
    assert one.bits == 8 * expected.itemsize


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (RGBA.astype(np.int64), "type int64: save uint8, uint16 or floats"),
        (RGBA.astype(np.float32), "floats from 0 to 255: scale them"),
        (np.full((4, 4), np.nan), "scale them to 0"),
        (np.zeros((3, 64, 64), np.uint8), r"looks like \[C, H, W\]"),
        (np.zeros((2, 2, 2, 2), np.uint8), "has the shape"),
        (np.zeros((0, 4), np.uint8), "has the shape"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(decoding.Unreadable, match=message):
        decoding.decode(npy(array))


def test_conversions_follow_pillow():
    image = Image.fromarray(RGB)
    grey = np.asarray(image.convert("L"))[..., None]
    np.testing.assert_array_equal(decoding.convert(RGB, 1, alpha=False), grey)
    np.testing.assert_array_equal(
        decoding.convert(grey, 3, alpha=False), np.repeat(grey, 3, axis=2)
    )
    opaque = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(decoding.convert(RGB, 4, alpha=False), opaque)
    on_white = Image.new("RGBA", image.size, "white")
    on_white.alpha_composite(Image.fromarray(RGBA))
    ours = decoding.convert(RGBA, 3, alpha=True).astype(int)
    assert np.abs(ours - np.asarray(on_white.convert("RGB"))).max() <= 1
    exact = RGB * (RGBA[..., 3:] / 255) + 255 - RGBA[..., 3:]
    np.testing.assert_allclose(ours, exact, atol=0.501)


def test_conversions_of_16_bits():
    deep = RGBA.astype(np.uint16) * 257
    for channels in (1, 3):
        shallow = decoding.convert(RGBA, channels, alpha=True)
        converted = decoding.convert(deep, channels, alpha=True)
        assert converted.dtype == np.uint16
        # Both steps round: half a level each, and 8 bits are 257 levels apart.
        assert np.abs(converted / 257 - shallow).max() < 1.01
    assert (decoding.convert(deep[..., :1], 4, alpha=False)[..., 3] == 65535).all()


def test_conversions_that_do_not_exist():
    assert not decoding.is_convertible(5, 3, alpha=False)
    assert not decoding.is_convertible(3, 2, alpha=False)
    with pytest.raises(ValueError, match="5 channels cannot become 3"):
        decoding.convert(np.zeros((2, 2, 5), np.uint8), 3, alpha=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"these are my notes\n", "is text, not an image"),
        (b"\n<!DOCTYPE html><html>", "is an HTML page"),
        (bytes(range(256)), "no image that Pillow can read"),
        (saved(RGB, "JPEG")[:-200], "is damaged"),
        (saved(RGB)[:200], "is damaged"),
        (npy(RGB)[:-5], "is damaged"),
        (
            saved(
                RGB, "GIF", save_all=True, append_images=[Image.fromarray(255 - RGB)]
            ),
            "several frames or pages",
        ),
    ],
)
def test_what_is_no_image_says_why(data, message):
    with pytest.raises(decoding.Unreadable, match=message):
        decoding.decode(data)


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "NPY"])
def test_damage_never_escapes_as_another_error(form):
    rng = np.random.default_rng(1)
    data = npy(RGB) if form == "NPY" else saved(RGB, form)
    for _ in range(150):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        for _ in range(rng.integers(0, 4)):
            damaged[rng.integers(0, min(len(damaged), 150))] = rng.integers(0, 256)
        for look in (decoding.describe, decoding.decode):
            with contextlib.suppress(decoding.Unreadable):
                look(bytes(damaged))


def test_errors_of_the_disk_are_not_blamed_on_the_content():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 5:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output"):
        decoding.describe(Broken(saved(RGB)))
