"""The skeleton of every page that the package writes: elements, parts, the document.

A page is one file that needs no network and is whole without JavaScript. It is built
from `tag`, which escapes every text and every attribute; markup comes from here alone
(`Html`), so that no class name, path or field of a file can become an element.

    classes = html.table(["class", "images"], rows)
    files.write_bytes(path, html.document("Tulips", {"Classes": classes}))
"""

import base64
import datetime
import hashlib
import html as standard
import json
import math
from collections.abc import Iterable, Sequence

from ddpm_jax.report import style

VOID = ("br", "img", "input", "meta")
CHILDLESS = ("circle", "line", "path", "polygon", "polyline", "rect")  # of SVG
CRISP_WIDTH = 360  # pixels; a narrow screen does not make such a picture smaller
SIGNIFICANT = 4  # digits of a number that is no integer


class Html(str):
    """Markup: text that `tag` does not escape again."""

    __slots__ = ()


def tag(name: str, /, *children, **attributes) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: text, which is escaped, `Html`, which is not, None, or iterables of
            these.
        attributes: underscores become hyphens, one at the end is dropped (`class_`);
            None and False leave an attribute out, True writes its name alone.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{standard.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    if name in CHILDLESS:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children) -> Html:
    """Return the markup of text, `Html`, None, or iterables of these."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, Iterable) and not isinstance(children, str):
        return Html("".join(join(child) for child in children))
    return Html(standard.escape(str(children)))


# ---- parts ---------------------------------------------------------------------------


def note(*children) -> Html:
    """Return a paragraph that helps to read what follows."""
    return tag("p", *children, class_="note")


def table(head: Sequence, rows: Iterable[Sequence], *, caption=None) -> Html:
    """Return a table that scrolls sideways where the screen is narrow.

    Args:
        head: one text a column.
        rows: one cell a column, the first of which names the row. A number is written
            by `number`, and a column of numbers is set to the right.
        caption: what the table shows, written above it.
    """
    rows = [list(row) for row in rows]
    kinds = [
        "number" if _is_numeric(column) else None for column in zip(*rows, strict=True)
    ]
    kinds += [None] * (len(head) - len(kinds))
    columns = tag(
        "tr",
        (
            tag("th", text, scope="col", class_=kind)
            for text, kind in zip(head, kinds, strict=True)
        ),
    )
    content = tag(
        "div",
        tag(
            "table",
            tag("thead", columns),
            tag("tbody", (_row(row, kinds) for row in rows)),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption or "table",
    )
    return join([note(caption) if caption else None, content])


def _is_numeric(column):
    return all(isinstance(c, int | float) or c is None for c in column)


def _row(cells, kinds):
    first, *others = (
        number(cell) if isinstance(cell, int | float) or cell is None else cell
        for cell in cells
    )
    return tag(
        "tr",
        tag("th", first, scope="row"),
        (
            tag("td", cell, class_=kind)
            for cell, kind in zip(others, kinds[1:], strict=True)
        ),
    )


def facts(pairs: Iterable[tuple]) -> Html:
    """Return a list of (name, value) pairs; those whose value is None are left out."""
    return tag(
        "dl",
        (
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in pairs
            if value is not None
        ),
        class_="facts",
    )


def details(summary, *children) -> Html:
    """Return a part that opens on request."""
    return tag("details", tag("summary", summary), *children)


def figure(content: Html, caption, *, below=None) -> Html:
    """Return a picture or chart under its caption.

    Args:
        content: an image or a chart.
        caption: what it shows, with the unit.
        below: what to know to read it.
    """
    return tag("figure", tag("figcaption", caption), content, below and note(below))


def figures(children: Iterable[Html]) -> Html:
    """Return figures side by side, as many as the screen has room for."""
    content = join(children)
    return tag("div", content, class_="figures") if content else content


def picture(data: bytes, mime: str, *, alt: str, width: int, height: int) -> Html:
    """Return an image that lies inside the page.

    Args:
        data: the encoded image; mime: e.g. "image/png".
        alt: what it shows, in words.
        width, height: pixels that it takes where there is room; small pictures are
            enlarged by sharp pixels.
    """
    crisp = "crisp" if width <= CRISP_WIDTH else None
    source = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return tag("img", src=source, alt=alt, width=width, height=height, class_=crisp)


def command(text: str) -> Html:
    """Return a command line to copy."""
    return tag("pre", tag("code", text), tabindex="0")


# ---- numbers -------------------------------------------------------------------------


def number(
    value: float | int | None, unit: str = "", *, digits: int = SIGNIFICANT
) -> Html:
    """Return a number that people can read, with the whole one for machines.

    Integers have their thousands apart, other numbers a few significant digits; a
    missing or infinite one is a dash.

    Args:
        value: the number.
        unit: written behind it.
        digits: significant ones.
    """
    if value is None or not math.isfinite(value):
        return tag("span", "–", class_="missing", title="not a number")
    shown = short(value, digits) + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")
    return tag("data", shown, value=json.dumps(value))


def measured(value: float, error: float, unit: str = "") -> Html:
    """Return e.g. "2.352 ± 0.026 bits/dim": two digits of the error, and as many."""
    places = max(0, 1 - math.floor(math.log10(error))) if error > 0 else SIGNIFICANT
    parts = (
        tag("data", f"{item:.{places}f}".replace("-", "−"), value=json.dumps(item))
        for item in (value, error)
    )
    whole = join([next(parts), " ± ", next(parts), f" {unit}" if unit else ""])
    return tag("span", whole, class_="whole")


def short(value: float | int, digits: int = SIGNIFICANT) -> str:
    """Return e.g. "1,200", "0.0312", "2.312" or "4.1·10⁻⁷"."""
    if isinstance(value, int) or value == 0:
        return f"{int(value):,}".replace("-", "−")
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent < 6:
        factor = f"{value / 10.0**exponent:.3g}"
        return f"{factor}·10{power(exponent)}".replace("-", "−")
    text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def power(exponent: int) -> str:
    """Return an integer in superscript."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# ---- the document --------------------------------------------------------------------


def document(
    title: str, sections: dict[str, Html], *, header: Html | None = None
) -> bytes:
    """Return a whole page.

    The policy in its head lets it load nothing and run no script but its own.

    Args:
        title: of the page, also its first heading.
        sections: heading to content; those without content are left out.
        header: what stands before the menu of sections, e.g. a status.
    """
    digest = hashlib.sha256(style.SCRIPT.encode()).digest()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(digest).decode()}'; base-uri 'none'"
    )
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style.SHEET)),
    ]
    shown = {name: content for name, content in sections.items() if content}
    links = (tag("a", name, href=f"#{anchor(name)}") for name in shown)
    body = [
        tag("header", tag("h1", title), header),
        tag("nav", links, aria_label="Sections") if len(shown) > 1 else None,
        tag("main", (_section(*item) for item in shown.items())),
        tag("script", Html(style.SCRIPT)),
    ]
    page = tag("html", tag("head", head), tag("body", body), lang="en")
    # Names of files may be in another encoding than UTF-8.
    return f"<!doctype html>\n{page}\n".encode(errors="backslashreplace")


def _section(title, content):
    return tag("section", tag("h2", title), content, id=anchor(title))


def anchor(title: str) -> str:
    """Return the id of a section: its title in lower case with hyphens."""
    kept = (char if char.isalnum() else " " for char in title.lower())
    return "-".join("".join(kept).split())


def moment(seconds_from_now: float = 0) -> Html:
    """Return a time; the script of the page adds how long ago, or ahead, it is."""
    now = datetime.datetime.now().astimezone()
    moment = now + datetime.timedelta(seconds=seconds_from_now)
    return tag(
        "time",
        moment.strftime("%Y-%m-%d %H:%M %Z"),
        datetime=moment.isoformat(timespec="seconds"),
    )
