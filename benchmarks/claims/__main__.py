"""The command line: python -m benchmarks.claims <claim> | all | --list | --render."""

import argparse
import pathlib
import sys

from benchmarks.claims import arms, catalogue, store
from ddpm_jax.core import errors

DOCS = arms.ROOT / "docs"


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.claims",
        description="Test claims of the papers on small runs, and write docs/claims.",
    )
    flags.add_argument("claim", nargs="?", default="", help="a claim, or all")
    flags.add_argument("--list", action="store_true", help="claims and verdicts")
    flags.add_argument(
        "--render", action="store_true", help="pages from stored numbers"
    )
    flags.add_argument("--fast", action="store_true", help="tiny runs; needs --results")
    flags.add_argument("--minutes", type=float, help="of this time, then stop")
    flags.add_argument("--workdir", type=pathlib.Path, default="runs/claims")
    flags.add_argument("--results", type=pathlib.Path, help="folder of the numbers")
    flags.add_argument("--docs", type=pathlib.Path, help="folder of the pages")
    return flags


def run(args) -> None:
    """Do what the flags ask for.

    Raises:
        Refusal: an unknown claim, or numbers of another experiment.
    """
    if args.fast and not (args.results and args.docs):
        raise errors.Refusal(
            "--fast makes numbers that mean nothing: name folders for them with "
            "--results=FOLDER --docs=FOLDER, so that none lies beside real ones"
        )
    kept = store.Store(args.results or store.RESULTS)
    if args.claim:
        claims = catalogue.chosen(args.claim)
        from benchmarks.claims import running
        from ddpm_jax.core import flags as jax_flags
        from ddpm_jax.runtime import compilation

        workdir = args.workdir / "fast" if args.fast else args.workdir
        with jax_flags.as_program():
            compilation.enable_cache()
            runner = running.Runner(kept, workdir, fast=args.fast)
            wanted = running.jobs(claims)
            running.do_all(runner, wanted, args.minutes)
    elif not (args.list or args.render):
        raise errors.Refusal(
            "no claim is named: give all, or one of " + ", ".join(catalogue.CLAIMS)
        )
    from benchmarks.claims import pages

    if args.list:
        print(pages.listing(kept, fast=args.fast))
    else:
        pages.write(kept, args.docs or DOCS, fast=args.fast)


def main() -> None:
    """Run, telling refusals in one sentence."""
    try:
        run(parser().parse_args())
    except errors.Refusal as refusal:
        sys.exit(f"error: {refusal}")


if __name__ == "__main__":
    main()
