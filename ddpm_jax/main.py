"""The command line: flags, then one mode.

python -m ddpm_jax.main …
  --config=configs/digits.py                          trains
  --mode=data --config=configs/folder.py:photos       shows what a network would see
  --mode=sample --workdir=runs/digits                 makes images
  --mode=inpaint --workdir=RUN --image=F --mask=F     makes a part of a picture anew
  --mode=restore --workdir=RUN --image=F --operator=…  undoes blur, coarseness, gaps
  --mode=vary --workdir=RUN --image=F                 makes variations of a picture
  --mode=interpolate --workdir=RUN --image=F --image=G  goes from one to the other
  --mode=animate --workdir=runs/digits --kind=walk    makes an animation
  --mode=compress --workdir=runs/digits               image quality by bits
  --mode=demo --workdir=runs/digits                   a page to play with
  --mode=evaluate --workdir=runs/digits               scores
  --mode=compare CARD CARD …                          puts evaluation cards side by side
  --mode=diagnose --workdir=runs/digits               why samples are noise, or tinted
  --mode=convert --source=FILE|DIR --workdir=RUN      imports published weights
  --mode=reproduce [--row=ROW --source=FILE]          a row of the papers' tables
  --mode=export --workdir=RUN --format=… --output=…   safetensors, diffusers, openai
  --mode=plan --config=… [--topology=v5e:4x4]         memory, FLOPs, hours of a run
  --mode=doctor                                       checks this machine
Any field of the config: --config.train.steps=500

On several machines give every process the same command. Slurm, TPU slices and
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID tell each its place, or
  --coordinator=HOST:PORT --num_processes=N --process_id=I
They must find each other within --timeout=300 seconds.
"""

import contextlib
import dataclasses
import errno
import importlib
import os
import sys

from ddpm_jax.config import command_line, modes, reading
from ddpm_jax.core import errors
from ddpm_jax.runtime import console as console_lib
from ddpm_jax.runtime import versions

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def main(argv=None) -> int:
    """Run one mode and return the exit status.

    It is 0, 1 after an error in one sentence, or train.exit_code_on_preemption where a
    scheduler stopped training.

    Args:
        argv: program name and arguments; those of the process by default.
    """
    argv = list(sys.argv if argv is None else argv)
    debug = any(a.lstrip("-") in ("debug", "debug=true", "debug=1") for a in argv)
    try:
        command = parse(argv)
        if command is None:
            return 0
        mode = modes.MODES[command.mode]
        os.environ.update(mode.environment(command.flags))
        with _together(command):
            # Only now: a refused command line should not wait for JAX.
            module = importlib.import_module(f"ddpm_jax.modes.{mode.name}")
            with _flags():
                status = module.run(*(command.value(name) for name in mode.passes))
            return status or 0
    except errors.Refusal as refusal:
        if debug:
            raise
        console_lib.say_error(f"error: {refusal}")
        return 1
    except OSError as error:
        # Disks fill up and vanish; that is no defect of ours if a file is to blame.
        if debug or error.filename is None:
            raise
        sentence = f"{error.filename}: {error.strerror}"
        if error.errno in FULL_DISK:
            sentence += "; make room and run the same command again to resume from "
            sentence += "what is saved"
        console_lib.say_error(f"error: {sentence}")
        return 1
    except KeyboardInterrupt:
        # Modes catch the signal themselves once there is something to save.
        console_lib.say("stopped on request; there was nothing to save yet")
    return 0


def _flags():
    """Return the context of our flags of JAX; some modes do without JAX."""
    if "jax" not in sys.modules:
        return contextlib.nullcontext()
    from ddpm_jax.core import flags

    return flags.as_program()


def parse(argv) -> command_line.Command | None:
    """Return the command, or None where only help or the version was asked for.

    Raises:
        Refusal: anything that is not understood.
    """
    return command_line.parse(argv, modes.MODES, __doc__)


@contextlib.contextmanager
def _together(command):
    """Join the other processes of the job, if there are any, until the mode ends."""
    processes = modes.MODES[command.mode].processes
    if processes == modes.ALONE:
        yield
        return
    from ddpm_jax.runtime import distributed
    from ddpm_jax.runtime.cluster import launch as launch_lib

    place = dataclasses.asdict(command.placement)
    timeout = place.pop("timeout")
    launch = launch_lib.find(os.environ, **place)
    if processes == modes.SINGLE:
        distributed.check_single(f"--mode={command.mode}", launch)
    if launch is None:
        yield
        return
    facts = _facts(command)
    distributed.start(
        launch,
        facts,
        timeout=timeout,
        advice={
            **dict.fromkeys(facts, "give every process the same command"),
            **dict.fromkeys(_installed(), "install the same on every host"),
        },
    )
    try:
        yield
    except BaseException as error:
        distributed.finish(str(error) or type(error).__name__)
        raise
    distributed.finish()


def _facts(command) -> dict[str, str]:
    """Return what the processes of a job must have in common."""
    fields = reading.leaves(command.config.to_dict())
    return {
        **_installed(),
        "--mode": command.mode,
        "--workdir": os.path.abspath(command.workdir),
        **{name: repr(value) for name, value in fields},
    }


def _installed() -> dict[str, str]:
    """Return the versions of what the processes compute with."""
    return {f"the version of {name}": v for name, v in versions.versions().items()}


def console() -> None:
    """Entry point of the console script `ddpm-jax`."""
    sys.exit(main())


if __name__ == "__main__":
    console()
