"""The site: the pages of docs/, some of the checkout, and a reference from docstrings.

    pip install -e '.[docs]'
    sphinx-build -W -b html docs docs/_build/html
    python -m http.server -d docs/_build/html

It needs no network, to build or to be read. Pages are written for GitHub too, so links
that leave docs/ are turned here.
"""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import ddpm_jax  # noqa: E402

project = "ddpm_jax"
author = "ddpm_jax maintainers"
version = release = ddpm_jax.__version__
html_title = f"ddpm_jax {release}"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 4
suppress_warnings = ["myst.xref_missing_download"]
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
toc_object_entries = False
pygments_style = "friendly"

# Pages that lie elsewhere in the checkout, by the name of their place here.
ELSEWHERE = {
    "index": "README.md",
    "launching": "launch/README.md",
    "results": "benchmarks/RESULTS.md",
    "changes": "CHANGELOG.md",
}
SOURCE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?:\.\./)?([\w./-]+)(#[\w-]+)?\)")


def read_source(app, docname, source):
    """Turn a page as GitHub shows it into one of the site, in place."""
    del app
    text = source[0]
    if docname in ELSEWHERE:
        there = (ROOT / ELSEWHERE[docname]).read_text()
        own = re.search(r"```\{toctree\}.*", text, re.S)
        text = there.partition("\n## Documents\n")[0] + "\n" + (own[0] if own else "")
        text = text.replace("](docs/", "](").replace("](../docs/", "](")
        folder = pathlib.PurePath(ELSEWHERE[docname]).parent
    else:
        folder = pathlib.PurePath("docs", docname).parent
    text = re.sub(r"```\{code-cell\}[^\n]*", "```python", text)
    source[0] = SOURCE_LINK.sub(lambda link: _link(link, folder, docname), text)


def _link(link, folder, docname):
    """Return a link of Markdown, to a page of the site where it leaves docs/."""
    text, path, anchor = link[1], link[2], link[3] or ""
    if "://" in path or path.startswith("#"):
        return link[0]
    pages = {value: key for key, value in ELSEWHERE.items()}
    depth = "../" * docname.count("/")
    for place in (ROOT / folder / path, ROOT / path, HERE / path):
        target = place.resolve()
        if not target.exists() or ROOT not in target.parents:
            continue
        name = target.relative_to(ROOT).as_posix()
        if name in pages:
            return f"[{text}]({depth}{pages[name]}.md{anchor})"
        if HERE in target.parents:
            return link[0]
        if target.is_dir() or name == "LICENSE":
            return text if text.startswith("`") else f"`{name}`"
        # A file of the source: MyST copies it beside the pages.
        return f"[{text}](<path:{depth}../{name}>)"
    return link[0]


# ---- docstrings are plain text with the field's formulas, not reStructuredText -------

FIELD = re.compile(r"^(\s*:\w+(?: [^:]+)?:)(.*)$")
CODE = re.compile(r"(``.+?``|`[^`]+`)")


def read_docstring(app, what, name, obj, options, lines):
    """Make reStructuredText of what napoleon left, in place."""
    del app, what, name, obj, options
    made, before = [], ""
    for number, line in enumerate(lines):
        is_set_off = (
            line.startswith("    ") and not (lines[number - 1 : number] or [""])[0]
        )
        if is_set_off and before and not before.startswith((" ", ":", "..")):
            made += ["::", ""]  # a formula or a command, set off from the text
        literal = bool(made) and line.startswith("    ") and _in_literal(made)
        made.append(line if literal else _escaped(line))
        before = line or before
    lines[:] = made


def _in_literal(made):
    for line in reversed(made):
        if line == "::":
            return True
        if line and not line.startswith("    "):
            return False
    return False


def _escaped(line):
    """Return a line in which `code` is code, and *, |, _ stand for themselves."""
    if line.lstrip().startswith(".. "):
        return line
    field = FIELD.match(line)
    if field:
        return re.sub(r"(?<!\\)\*", r"\\*", field[1]) + _escaped(field[2])
    parts = CODE.split(line)
    for number, part in enumerate(parts):
        if CODE.fullmatch(part):
            parts[number] = f"``{part.strip('`')}``"
        else:
            bullet = re.match(r"\s*[*-] ", part) if number == 0 else None
            head = bullet[0] if bullet else ""
            # Code ends where a space follows it; "\\ " is one that is not shown.
            head += "\\ " if number and re.match(r"\w", part) else ""
            rest = part[len(bullet[0]) :] if bullet else part
            parts[number] = head + re.sub(r"([\\*|_`])", r"\\\1", rest)
    return "".join(parts)


def setup(app):
    """Connect the two readers."""
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring, priority=600)
