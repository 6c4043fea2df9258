"""From a checkpoint to config fields: what its shapes, its JSON and a table tell.

What none of them tells must be given; nothing is guessed in silence.
"""

import collections
import dataclasses
import textwrap
from collections.abc import Mapping

from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert import published
from ddpm_jax.convert.format import HEADS
from ddpm_jax.convert.formats import FORMATS
from ddpm_jax.core import errors

SHAPES = "the shapes"
GIVEN = "your --config"
LINE = 88
"""Columns of a terminal for lists of fields."""

LEARNED = ("learned_range", "learned")
FIXED = ("fixed_large", "fixed_small")
NOT_OF_CLASSIFIERS = ("diffusion.prediction", "diffusion.variance")
UNDECIDED = {"data.image_size": (), "data.channels": 0}
"""Values by which a config leaves a field to its data: they decide nothing here."""

WITHOUT_EFFECT = ("model.dropout", "diffusion.loss", "diffusion.timestep_sampler")
"""Fields of training alone, in which published files of equal shapes differ."""

HEADER = "the file's header"
OF_WEIGHTS = ("data.image_size", "data.channels", "model.", "diffusion.", "facts.")
NOT_OF_WEIGHTS = (*WITHOUT_EFFECT, "model.dtype", "model.remat")
"""Fields of our own files that the weights depend on, by their beginnings, and not."""

LONG = ("facts.tokenizer",)  # not to be read out


@dataclasses.dataclass(frozen=True)
class Recognised:
    """What a checkpoint is.

    Attributes:
        fields: values by dotted config name, and "facts.…" beside them.
        origin: where each field comes from: `SHAPES`, a JSON file, the code's dialect,
            the published table, or `GIVEN`.
        published: its name in `published.PUBLISHED`, or None.
        assumed: sentences on what was taken for granted or overruled.
    """

    fields: dict[str, object]
    origin: dict[str, str]
    published: str | None
    assumed: list[str]

    def sentences(self) -> list[str]:
        """Return what was found in words: the name, each field's origin, the rest.

        Fields that the weights do not depend on are in the import record alone.
        """
        known = "not one of the published files"
        if self.published:
            notes = published.PUBLISHED[self.published].notes
            known = f"published as {self.published}" + (f": {notes}" if notes else "")
        by_origin = collections.defaultdict(list)
        for name, value in self.fields.items():
            if name.startswith(OF_WEIGHTS) and name not in LONG:
                by_origin[self.origin[name]].append(f"{name}={value!r}")
        told = {f"by {origin}": ", ".join(v) for origin, v in by_origin.items()}
        notes = [("note", sentence) for sentence in self.assumed]
        return [known, *(_paragraph(*pair) for pair in [*told.items(), *notes])]


def recognise(source: open_lib.Source, given: Mapping[str, object]) -> Recognised:
    """Return the fields of the network and the process that a checkpoint holds.

    Args:
        source: the checkpoint.
        given: fields that the user gave; they fill what the checkpoint does not tell.

    Raises:
        Refusal: a given value contradicts the shapes or the network's JSON; something
            that nothing tells is missing, all of it named at once.
    """
    given = _all_plain(
        {
            name: value
            for name, value in given.items()
            if name not in UNDECIDED or value != UNDECIDED[name]
        }
    )
    findings, record = Findings(given), FORMATS[source.format]
    if record.header:
        _of_header(record.recognise(source.configs[record.header]), findings)
        return Recognised(findings.fields, findings.origin, None, findings.assumed)
    told = record.recognise(source.shapes)
    attended = told.pop("facts.attended_levels", None)
    learned = told.pop("facts.learned_variance", None)
    findings.require(told, SHAPES)
    if record.read_configs:
        attended = record.read_configs(source, findings)
    findings.prefer(record.dialect, record.code)
    name = _of_table(source, findings)
    findings.prefer(*record.usual(findings.fields))
    findings.default(given, GIVEN)
    if attended is not None:
        _place_attention(findings, attended)
    if learned is not None and findings.fields["model.kind"] != "classifier":
        _choose_variance(findings, learned)
    _choose_heads(findings, attended)
    _check_complete(source, findings)
    return Recognised(findings.fields, findings.origin, name, findings.assumed)


def _paragraph(start, text):
    return textwrap.fill(
        f"{start}: {text}",
        LINE,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


class Findings:
    """Fields under way, each with where it comes from."""

    def __init__(self, given):
        self.given = given
        self.fields = {}
        self.origin = {}
        self.assumed = []
        self.required = set()

    def require(self, told, origin):
        """Take fields that the file proves; a given value may not contradict them."""
        for name, value in _all_plain(told).items():
            if self.fields.get(name, value) != value:
                raise errors.Refusal(
                    f"{name} is {value!r} by {origin}, but {self.fields[name]!r} by "
                    f"{self.origin[name]}: they do not belong together; fetch both "
                    "from one place"
                )
            if self.given.get(name, value) != value:
                raise errors.Refusal(
                    f"{name} is {value!r} by {origin}, but {self.given[name]!r} by "
                    f"--config.{name}: leave the field out or give the other file"
                )
            self.fields[name], self.origin[name] = value, origin
            self.required.add(name)

    def prefer(self, values, origin):
        """Take fields that are likely; a given value overrules them, with a note."""
        for name, value in _all_plain(values).items():
            if name in self.fields:
                continue
            if self.given.get(name, value) == value:
                self.fields[name], self.origin[name] = value, origin
            else:
                self.assumed.append(
                    f"{name} is {self.given[name]!r} as given; {origin} has {value!r}"
                )

    def default(self, values, origin):
        """Take fields that nothing else decided."""
        for name, value in values.items():
            if name not in self.fields:
                self.fields[name], self.origin[name] = value, origin


def _all_plain(values):
    return {name: _plain(name, value) for name, value in values.items()}


def _plain(name, value):
    """Return a value as configs have it: tuples, and a size as (height, width)."""
    if isinstance(value, list | tuple):
        value = tuple(value)
    if name == "data.image_size":
        value = value if isinstance(value, tuple) else (value,)
        value = value * 2 if len(value) == 1 else value
    return value


# ---- what tells ----------------------------------------------------------------------


def _of_header(told, findings):
    """Take what one of our own files says of itself, which is everything."""
    of_weights = {
        name: value
        for name, value in told.items()
        if name.startswith(OF_WEIGHTS) and name not in NOT_OF_WEIGHTS
    }
    findings.require(of_weights, HEADER)
    findings.prefer(told, HEADER)
    findings.default(findings.given, GIVEN)


def _of_table(source, findings):
    """Take what the table of published files says of these shapes; return the name."""
    alike = published.find(source.format, source.shapes)
    named = [entry for entry in alike if published.is_named(entry, source.path)]
    entries = named if len(named) == 1 else alike
    if not entries:
        return None
    first, *others = entries
    agreed = {
        name: value
        for name, value in first.fields.items()
        if all(other.fields.get(name) == value for other in others)
    }
    listed = " or ".join(entry.name for entry in entries)
    findings.prefer(agreed, f"the published {listed}")
    if not others:
        return first.name
    findings.assumed.append(
        f"its shapes are those of {listed}; the name of the file does not tell which"
    )
    training = {n: first.fields[n] for n in WITHOUT_EFFECT if n in first.fields}
    findings.prefer(training, f"the published {first.name}")
    return None


# ---- what follows --------------------------------------------------------------------


def _place_attention(findings, attended):
    """Turn levels with attention into sizes in pixels, once the size is known."""
    if "data.image_size" in findings.fields:
        side = min(findings.fields["data.image_size"])
        sizes = tuple(side // 2**level for level in attended)
        given = findings.given.get("model.attention_resolutions")
        if given is not None and sorted(given) == sorted(sizes):
            sizes = given
        findings.fields.pop("model.attention_resolutions", None)
        findings.require({"model.attention_resolutions": sizes}, SHAPES)


def _choose_variance(findings, learned):
    """Settle the variance, which the number of channels that come out narrows down."""
    choices = LEARNED if learned else FIXED
    given = findings.fields.get("diffusion.variance", choices[0])
    if given not in choices:
        raise errors.Refusal(
            f"diffusion.variance={given!r} contradicts the shapes: the network returns "
            f"{'twice as many' if learned else 'as many'} channels as an image has, so "
            f"it is one of {', '.join(choices)}"
        )
    if learned and "diffusion.variance" not in findings.fields:
        findings.default({"diffusion.variance": LEARNED[0]}, SHAPES)
        findings.assumed.append(
            f"diffusion.variance is {LEARNED[0]!r}, as in all published models that "
            "return twice as many channels"
        )
    findings.default({"diffusion.loss": "hybrid" if learned else "simple"}, SHAPES)


def _choose_heads(findings, attended):
    """Settle the pair that describes heads: num_heads counts if head_channels is 0."""
    fields, given = findings.fields, findings.given
    number, width = HEADS
    proven = width in findings.required and fields[width]
    if number in given and proven and not given.get(width):
        raise errors.Refusal(
            f"{number}={given[number]!r} contradicts {findings.origin[width]}: heads "
            f"are {proven} channels wide there; leave it out"
        )
    if not proven and (number in given or width in given):
        fields[number], fields[width] = given.get(number, 4), given.get(width, 0)
        findings.origin |= dict.fromkeys(HEADS, GIVEN)
    unused = not attended and fields.get("model.middle_attention") == "none"
    if unused or any(fields.get(name) for name in HEADS):
        findings.default({number: 4, width: 0}, "not used")


def _check_complete(source, findings):
    fields = findings.fields
    needed = FORMATS[source.format].needed
    missing = {name: choices for name, choices in needed.items() if name not in fields}
    if not fields.get("model.text_layers"):
        missing.pop("model.text_heads", None)
    if fields["model.kind"] == "classifier":
        missing = {n: c for n, c in missing.items() if n not in NOT_OF_CLASSIFIERS}
    if set(HEADS) <= missing.keys():
        del missing["model.head_channels"]  # either is enough
    if not missing:
        return
    flags = [f"  --config.{name}=…  {choices}" for name, choices in missing.items()]
    raise errors.Refusal(
        f"{source.path} is none of the published files, and nothing in it tells the "
        "following; add\n" + "\n".join(flags)
    )
