"""That header and decoder agree on every kind of picture, and odd TIFF files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from ddpm_jax.data import decoding

LOW, HIGH = 1000, 51000
GREY_16 = np.full((4, 6), LOW, np.uint16)
GREY_16[:, 3:] = HIGH
COLOURS = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
)


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def tiff(pixels, photometric=1, sample_format=1, order="<"):
    """A TIFF file of one strip, by its specification; Pillow writes few kinds."""
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    height, width = pixels.shape
    data = pixels.tobytes()
    tags = [(256, width), (257, height), (258, 8 * pixels.itemsize), (259, 1)]
    tags += [(262, photometric), (273, 8), (277, 1), (278, height), (279, len(data))]
    tags += [(339, sample_format)]
    mark = b"II" if order == "<" else b"MM"
    body = mark + struct.pack(order + "HI", 42, 8 + len(data)) + data
    body += struct.pack(order + "H", len(tags))
    for tag, value in tags:
        body += struct.pack(order + "HHIHH", tag, 3, 1, value, 0)
    return body + struct.pack(order + "I", 0)


def with_transparent_grey(value):
    """A 16-bit grey PNG with the chunk that makes one value transparent."""
    data = saved(Image.fromarray(GREY_16), "PNG")
    chunk = b"tRNS" + struct.pack(">H", value)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    place = data.index(b"IDAT") - 4
    return data[:place] + chunk + data[place:]


def pictures():
    """Yield a name and a file for every mode that Pillow reads from a file."""
    grey, palette = COLOURS.convert("L"), COLOURS.quantize(4)
    opaque = COLOURS.convert("RGBA")
    for form in ("PNG", "TIFF", "BMP", "GIF", "JPEG", "WEBP"):
        yield f"L {form}", saved(grey, form)
        yield f"RGB {form}", saved(COLOURS, form)
    for form in ("PNG", "TIFF", "BMP", "GIF"):
        yield f"1 {form}", saved(grey.convert("1"), form)
        yield f"P {form}", saved(palette, form)
    for form in ("PNG", "TIFF"):
        yield f"I;16 {form}", saved(Image.fromarray(GREY_16), form)
        yield f"LA {form}", saved(opaque.convert("LA"), form)
        yield f"RGBA {form}", saved(opaque, form)
    yield "RGBA WEBP", saved(opaque, "WEBP")
    yield "RGBA BMP", saved(opaque, "BMP")
    yield "PA TIFF", saved(palette.convert("PA"), "TIFF")
    yield "La TIFF", saved(opaque.convert("LA"), "TIFF", tiffinfo={338: 1})
    yield "I TIFF", saved(Image.fromarray(GREY_16.astype(np.int32)), "TIFF")
    yield "I;16B TIFF", tiff(GREY_16, order=">")
    yield "I;16 lzw", saved(Image.fromarray(GREY_16), "TIFF", compression="tiff_lzw")
    yield "I;16 white is zero", tiff(GREY_16, photometric=0)
    yield "CMYK TIFF", saved(COLOURS.convert("CMYK"), "TIFF")
    yield "LAB TIFF", saved(Image.new("LAB", (6, 4), 1), "TIFF")
    yield "YCbCr TIFF", saved(COLOURS, "TIFF", compression="jpeg")
    yield "CMYK JPEG", saved(COLOURS.convert("CMYK"), "JPEG")
    for name, image, value in (
        ("1", grey.convert("1"), 0),
        ("L", grey, 3),
        ("P", palette, 0),
        ("P by entry", palette, bytes([0, 128, 255, 255])),
        ("RGB", COLOURS, (1, 2, 3)),
    ):
        yield f"{name} with tRNS", saved(image, "PNG", transparency=value)
    yield "P GIF with transparency", saved(palette, "GIF", transparency=0)
    yield "I;16 with tRNS", with_transparent_grey(LOW)


PICTURES = dict(pictures())


@pytest.mark.parametrize("name", PICTURES)
def test_the_header_says_what_is_decoded(name):
    data = PICTURES[name]
    one = decoding.describe(data)
    assert decoding.decode(data).shape == (one.height, one.width, one.channels)
    for channels in (0, 1, 3, 4):
        decoded = decoding.decode(data, channels)
        assert decoded.shape == (4, 6, channels or one.channels)
        assert 8 * decoded.itemsize == one.bits
    assert one.alpha == (one.channels in (2, 4))


def test_16_bit_grey_becomes_colours_without_loss():
    for data in (saved(Image.fromarray(GREY_16), "PNG"), tiff(GREY_16, order=">")):
        for channels in (3, 4):
            decoded = decoding.decode(data, channels)
            for channel in range(3):
                np.testing.assert_array_equal(decoded[..., channel], GREY_16)


def test_a_transparent_value_of_16_bits_is_opacity():
    data = with_transparent_grey(LOW)
    decoded = decoding.decode(data)
    np.testing.assert_array_equal(decoded[..., 0], GREY_16)
    np.testing.assert_array_equal(decoded[..., 1], 65535 * (GREY_16 != LOW))
    on_white = np.where(GREY_16 == LOW, 65535, GREY_16)
    np.testing.assert_array_equal(decoding.decode(data, 1)[..., 0], on_white)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("top", [False, True])
def test_a_transparent_value_of_few_bits_is_opacity(depth, top):
    row = bytes([0b00000000, 0b11111111])
    header = struct.pack(">IIBBBBB", 16 // depth, 1, depth, 0, 0, 0, 0)
    value = struct.pack(">H", top * (2**depth - 1))
    parts = [(b"IHDR", header), (b"tRNS", value)]
    parts += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, held in parts:
        data += struct.pack(">I", len(held)) + kind + held
        data += struct.pack(">I", zlib.crc32(kind + held))
    decoded = decoding.decode(data)[0]
    ends = [[0, 255], [255, 0]] if top else [[0, 0], [255, 255]]
    np.testing.assert_array_equal(decoded[[0, -1]], ends)


@pytest.mark.parametrize("pixels", [GREY_16, (GREY_16 >> 8).astype(np.uint8)])
def test_white_is_zero_is_inverted(pixels):
    decoded = decoding.decode(tiff(pixels, photometric=0))
    np.testing.assert_array_equal(decoded[..., 0], np.iinfo(pixels.dtype).max - pixels)


@pytest.mark.parametrize(
    ("form", "depth"),
    [("PNG", 8), ("PNG", 16), ("TIFF", 8), ("TIFF", 16), ("JPEG", 8), ("WEBP", 8)],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_once(form, orientation, depth):
    image = COLOURS if depth == 8 else Image.fromarray(GREY_16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if form == "WEBP" else {}
    data = saved(image, form, exif=exif, **lossless)
    stored = saved(image, form, **lossless)
    flat = Image.open(io.BytesIO(stored))
    flat.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(flat))
    one = decoding.describe(data)
    assert one.orientation == orientation
    assert (one.height, one.width) == expected.shape[:2]
    decoded = decoding.decode(data)
    np.testing.assert_array_equal(decoded, expected.reshape(decoded.shape))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(np.full((4, 4), -5, np.int8), 1, 2), "signed numbers of 8 bits: save"),
        (
            tiff(np.full((4, 4), -5, np.int16), 1, 2),
            r"from -5 to -5, which do not fit 16 bits: save .npy arrays of np.clip",
        ),
        (
            tiff(np.full((4, 4), 10**6, np.uint32)),
            r"from 1000000 to 1000000, .* 16 bits: save .npy arrays of np.clip",
        ),
        (
            tiff(GREY_16, photometric=0, order=">"),
            r"not read \(1 x 16 bits, unsigned, big-endian, zero is white\): save it",
        ),
        (tiff(np.ones((4, 4), np.float32), 1, 3), r"floats: save .npy arrays"),
    ],
)
def test_tiff_files_that_are_not_read_say_what_to_do(data, message):
    with pytest.raises(decoding.Unreadable, match=message):
        decoding.decode(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_too_many_pixels_are_refused_by_their_number(form, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    data = saved(Image.new("L", (2000, 1500)), form)
    for look in (decoding.describe, decoding.decode):
        with pytest.raises(decoding.Unreadable, match=r"3 million pixels.* 2 million"):
            look(data)


def test_channels_that_cannot_be_converted_are_refused():
    file = io.BytesIO()
    np.save(file, np.zeros((8, 8, 5), np.uint8))
    with pytest.raises(decoding.Unreadable, match="5 channels, which cannot become 3"):
        decoding.decode(file.getvalue(), 3)


@pytest.mark.parametrize("kind", [np.int16, np.uint32, np.int64, bool])
def test_arrays_of_other_types_say_how_to_convert(kind):
    file = io.BytesIO()
    np.save(file, np.zeros((8, 8), kind))
    for look in (decoding.describe, decoding.decode):
        with pytest.raises(decoding.Unreadable, match=r"save uint8, .*np\.clip\(\(a"):
            look(file.getvalue())
