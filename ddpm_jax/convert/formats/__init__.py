"""The weight formats that are understood: a file and an entry here for each.

Each file holds the record, see `format.Format`, and what only it needs.
"""

from ddpm_jax.convert.formats import clip, ddpm, diffusers, native, openai

FORMATS = {
    record.name: record
    for record in (f.FORMAT for f in (openai, diffusers, ddpm, clip, native))
}
EXPORTS = {record.export.name: record for record in FORMATS.values() if record.export}
"""Formats that are written too, by the name of --format."""
