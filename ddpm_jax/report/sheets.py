"""Pictures with words: sheets of tiles with captions, and frames of animations."""

from collections.abc import Sequence

import numpy as np

WHITE, BLACK = 255, 0
FONT_SIZE, SMALLEST_FONT = 15, 9
LINE = 20  # pixels of a line of words
GAP = 4  # white pixels between tiles
BLOCK_GAP = 24  # … and between the blocks of a frame
BLOCK_SIDE = 256  # pixels that a block of a frame is enlarged to …
SMALL = 128  # … where it has fewer than that
LEAST_TILE = 32  # … and whatever the number of its images
TILE_SIDE = 96  # pixels to which the tiles of a sheet are enlarged


def coloured(images: np.ndarray) -> np.ndarray:
    """Return uint8 images [..., C] with one channel, or with three."""
    return images[..., : 3 if images.shape[-1] >= 3 else 1]


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """Return images [n, H, W, C], by a whole factor, with both sides ≥ `side`."""
    factor = max(1, -(-side // min(images.shape[1:3])))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Return images [n, H, W, C] row by row on white, with room between them.

    Unlike `image_grid.grid` this is for a few large ones, which would seem to touch.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels)
    canvas = np.full(shape, WHITE, np.uint8)
    for number, image in enumerate(images):
        top, left = (
            n * (side + GAP)
            for n, side in zip(divmod(number, columns), images.shape[1:3], strict=True)
        )
        canvas[top : top + height, left : left + width] = image
    return canvas


def frame(
    images: np.ndarray, *, captions: Sequence[str] = (), blocks: int = 1
) -> np.ndarray:
    """Return the picture of one frame: its images in a square grid, words below.

    Args:
        images: uint8 [n, H, W, C]; those of one block follow each other.
        captions: of each block; () for no line of words.
        blocks: grids side by side.

    Returns:
        uint8 [height, width, 1 or 3].
    """
    each = len(images) // blocks
    columns = int(np.ceil(np.sqrt(each)))
    images = coloured(images)
    if min(images.shape[1:3]) * columns < SMALL:
        images = enlarged(images, max(LEAST_TILE, BLOCK_SIDE // columns))
    parts = []
    for block in range(blocks):
        own = images[block * each :][:each]
        picture = tiled(own, columns)
        if captions:
            picture = np.concatenate(
                [picture, words(captions[block], picture.shape, margin=4)]
            )
        gap = np.full((picture.shape[0], BLOCK_GAP, picture.shape[2]), WHITE, np.uint8)
        parts += [gap, picture]
    return np.concatenate(parts[1:], axis=1)


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    names: Sequence[str] = (),
) -> np.ndarray:
    """Return rows of tiles with words below each column, and left of each row.

    Args:
        rows: of uint8 tiles [H, W, C], all of one size, as many in each row.
        captions: of the columns; several lines are separated by a line break.
        names: of the rows; () for none.

    Returns:
        uint8 [height, width, 1 or 3].
    """
    columns = len(captions)
    tiles = enlarged(coloured(np.stack([t for row in rows for t in row])), TILE_SIDE)
    picture = tiled(tiles, columns)
    height, width, channels = tiles.shape[1:]
    edge = GAP
    cells = []
    lines = max(caption.count("\n") for caption in captions) + 1
    for number, caption in enumerate(captions):
        gap = edge if number < columns - 1 else 0
        shape = (0, width + gap, channels)
        cells.append(words(caption, shape, lines=lines, margin=4))
    picture = np.concatenate([picture, np.concatenate(cells, axis=1)])
    if not any(names):
        return picture
    left = [_name(name, height + edge, channels) for name in names]
    left = np.concatenate(left)[: picture.shape[0]]
    below = np.full(
        (picture.shape[0] - left.shape[0], *left.shape[1:]), WHITE, np.uint8
    )
    return np.concatenate([np.concatenate([left, below]), picture], axis=1)


def words(
    text: str, shape: Sequence[int], *, lines: int = 1, margin: int = 0
) -> np.ndarray:
    """Return black words in the middle of a white bar.

    Args:
        text: what it says; too long a line becomes smaller, and is cut in the end.
        shape: of the picture that it belongs to, [_, width, channels].
        lines: that it has room for.
        margin: white pixels above and below.

    Returns:
        uint8 [height, width, channels].
    """
    from PIL import Image, ImageDraw

    _, width, channels = shape
    bar = Image.new("L", (width, lines * LINE + 2 * margin), WHITE)
    draw = ImageDraw.Draw(bar)
    for number, given in enumerate(text.split("\n")):
        line, font = _fitted(draw, given, width - 4)
        middle = (width / 2, margin + (number + 0.5) * LINE)
        draw.text(middle, line, fill=BLACK, font=font, anchor="mm")
    return np.repeat(np.asarray(bar)[..., None], channels, axis=-1)


def _fitted(draw, line, width):
    """Return a line of words, and the font, so that it is not wider than `width`."""
    from PIL import ImageFont

    size = FONT_SIZE
    font = ImageFont.load_default(size)
    while draw.textlength(line, font=font) > width and size > SMALLEST_FONT:
        size -= 1
        font = ImageFont.load_default(size)
    while len(line) > 1 and draw.textlength(line, font=font) > width:
        line = line.rstrip("…")[:-1] + "…"
    return line, font


def _name(text, height, channels):
    """Return a white cell as high as a row, with the words of its name."""
    cell = np.full((height, TILE_SIDE, channels), WHITE, np.uint8)
    count = text.count("\n") + 1
    bar = words(text, cell.shape, lines=count)
    top = max(0, (height - bar.shape[0]) // 2)
    cell[top : top + bar.shape[0]] = bar[: height - top]
    return cell
