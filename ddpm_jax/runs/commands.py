"""Commands that use a run, as they are typed."""

import shlex

PROGRAM = "python -m ddpm_jax.main"
PROMPT = '--prompt="an oil painting of a corgi"'


def guide(guided: str, classifier) -> str:
    """Return the command that samples with the guidance of a classifier.

    Args:
        guided: the run that it guides; "" where that is not known.
        classifier: its run.
    """
    where = shlex.quote(guided) if guided else "RUN"
    return (
        f"{PROGRAM} --mode=sample --workdir={where} "
        f"--config.sampling.classifier={shlex.quote(str(classifier))}"
    )


def complete(workdir) -> str:
    """Return what a run that completes pictures is for, and the command."""
    where = shlex.quote(str(workdir))
    return (
        f"complete pictures with it: {PROGRAM} --mode=inpaint --workdir={where} "
        "--image=FILE --mask=FILE"
    )
