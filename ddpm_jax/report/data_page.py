"""The page of `--mode=data`: one look at what the network will see."""

import numpy as np

from ddpm_jax.report import grids, html

MAX_LISTED = 200  # names in one list
MAX_ROWS = 12  # of a table of counts
EXAMPLE_BYTES = 1_500_000
COLUMNS = 8
SHOWN_SIDE = 128  # pixels of an image that stands beside its captions
SHOWN_LETTERS = 300  # of a caption


def page(
    title: str,
    *,
    refusal: str | None,
    dataset: dict | None,
    examples: np.ndarray | None = None,
    mean_image: np.ndarray | None = None,
    files: dict | None = None,
    captions: dict | None = None,
    remarks=(),
) -> bytes:
    """Return the page as HTML.

    Args:
        title: its heading.
        refusal: the sentence with which training would stop, or None.
        dataset: what is trained on: "facts", pairs of name and text, and "classes",
            rows of class, files and share; None where it could not be made.
        examples: uint8 [n, H, W, C], images after preprocessing.
        mean_image: uint8 [H, W, C].
        files: what lies on the disk: "facts" as above, "tables", heading to (head,
            rows), and "lists", heading to lines; None for data without files.
        captions: "facts" and "lists" as above, and "shown", pairs of an image uint8
            [H, W, C] and its captions; None where there are none.
        remarks: sentences on the data.
    """
    sections = {
        "Noticed": _remarks(remarks),
        "What the network sees": _seen(dataset, examples, mean_image),
        "Captions": _captions(captions),
        "Classes": _classes(dataset),
        "Files": _files(files),
    }
    for part in (captions, files):
        for heading, lines in (part or {}).get("lists", {}).items():
            sections[heading] = _listed(lines)
    return html.document(title, sections, header=_verdict(refusal))


def _verdict(refusal):
    if refusal is None:
        return html.tag("p", "Training can start with this data.", class_="lead")
    return html.tag("p", html.tag("b", "Training would stop: "), refusal, class_="lead")


def _remarks(remarks):
    if not remarks:
        return html.note("Nothing out of the ordinary.")
    return html.tag("ul", (html.tag("li", remark) for remark in remarks))


def _seen(dataset, examples, mean_image):
    if dataset is None:
        return None
    shown = [
        html.figure(
            _picture(examples, COLUMNS, f"{len(examples)} images after preprocessing"),
            f"{len(examples)} images of the training split, after preprocessing",
        ),
        html.figure(
            _picture(mean_image[None], 1, "the mean of the images"), "Their mean"
        ),
    ]
    pictures_of = html.tag("div", shown, class_="pair")
    return html.join([html.facts(dataset["facts"]), pictures_of])


def _picture(images, columns, alt):
    return grids.inline(images, columns=columns, alt=alt, limit=EXAMPLE_BYTES)


def _captions(captions):
    if captions is None:
        return None
    pictures = [
        html.figure(
            _picture(_enlarged(image)[None], 1, "an image of the training split"),
            _shortened(first),
            below=" / ".join(map(_shortened, others)),
        )
        for image, (first, *others) in captions["shown"]
    ]
    return html.join([html.facts(captions["facts"]), html.figures(pictures)])


def _enlarged(image):
    factor = max(1, SHOWN_SIDE // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _shortened(text):
    return text if len(text) <= SHOWN_LETTERS else f"{text[: SHOWN_LETTERS - 1]}…"


def _classes(dataset):
    if dataset is None or not dataset["classes"]:
        return None
    rows = dataset["classes"]
    shown = html.table(["class", "images", "share"], rows[:MAX_LISTED])
    more = len(rows) - MAX_LISTED
    return html.join([shown, html.note(f"{more} more classes.") if more > 0 else None])


def _files(files):
    if files is None:
        return None
    tables = [
        html.figure(html.table(head, rows[:MAX_ROWS]), _heading(name, rows))
        for name, (head, rows) in files["tables"].items()
        if rows
    ]
    return html.join([html.facts(files["facts"]), html.figures(tables)])


def _heading(name, rows):
    more = len(rows) - MAX_ROWS
    return f"{name} (the {MAX_ROWS} commonest of {len(rows)})" if more > 0 else name


def _listed(lines):
    if not lines:
        return None
    items = html.tag("ul", (html.tag("li", line) for line in lines[:MAX_LISTED]))
    more = len(lines) - MAX_LISTED
    return html.join([items, html.note(f"{more} more.") if more > 0 else None])
