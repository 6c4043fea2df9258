"""The flags --prompt and --prompts: texts to make images of."""

import pathlib

from ddpm_jax.core import errors

FIELD = "sampling.prompts"


def check_field(fields) -> None:
    """Refuse the field of prompts itself among those that the command line gives."""
    if FIELD in fields:
        raise errors.Refusal(
            f'--config.{FIELD} cannot be given: say --prompt="a red circle", as often '
            "as you like, or --prompts=FILE, one a line"
        )


def apply(config, own) -> None:
    """Set sampling.prompts to what the flags give.

    Args:
        config: to be changed.
        own: values of the mode's flags by name; perhaps "prompt", texts, and "prompts",
            a file.

    Raises:
        Refusal: both flags are given, or a file that cannot be read or holds no prompt.
    """
    texts, path = own.get("prompt", ()), own.get("prompts", "")
    if texts and path:
        raise errors.Refusal(
            f"--prompt={texts[0]!r} and --prompts={path} are both given: keep one"
        )
    if path:
        texts = read(path)
    if texts:
        config.sampling.prompts = tuple(texts)


def read(path: str) -> tuple[str, ...]:
    """Return the lines of a file of prompts that are not empty.

    Raises:
        Refusal: it cannot be read, is no text in UTF-8, or holds no prompt.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise errors.Refusal(
            f"--prompts={path} cannot be read ({error.strerror}): give a file of texts,"
            " one a line"
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.Refusal(
            f"--prompts={path} is no text in UTF-8 (byte {error.start}): save it as "
            "UTF-8"
        ) from error
    # Not splitlines(): a form feed or U+2028 is part of a text.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise errors.Refusal(f"--prompts={path} holds no prompt: give one a line")
    return found
