"""What training says of itself: at the start, on a resume, at the end."""

import shlex

import jax

from ddpm_jax.models import custom, functional
from ddpm_jax.runtime import distributed


def describe(config, facts, network, mesh, noun: str) -> str:
    """Return the line of what is about to be trained, and on what.

    Args:
        noun: what the network is called, where it is not the user's own.
    """
    device = jax.devices()[0]
    count = distributed.count()
    kind = "your network" if custom.note(network) else noun
    return (
        f"{config.data.name}: {facts.num_examples:,} images {facts.size}, "
        f"{facts.num_classes or 'no'} classes; {kind} of "
        f"{functional.num_parameters(network.shapes):,} parameters; "
        f"{mesh.size} x {device.device_kind} ({device.platform})"
        + (f" in {count} processes" if count > 1 else "")
    )


def resume_summary(restored, config, moved: int, *, rate: float) -> str:
    """Return the lines that list every part of a resume.

    Args:
        restored: from `Checkpoints.restore`.
        config: of the run.
        moved: lines of metrics that were set aside.
        rate: the learning rate of the next step.
    """
    state = restored.state
    count = functional.num_parameters(state.params)
    averages = ", ".join(
        f"{name} ({100 * float(share):.2g} % initial)"
        for name, share in state.ema_initial_share.items()
    )
    history = "with history" if jax.tree.leaves(state.timesteps) else "no history"
    decay = config.train.decay
    ends = "constant" if decay == "none" else f"{decay} to 0 at {config.train.steps}"
    if restored.step < config.train.warmup_steps:
        ends = f"rising until {config.train.warmup_steps}, then {ends}"
    parts = [
        f"resumed at step {restored.step}",
        f"parameters {count:,}",
        f"optimizer {len(jax.tree.leaves(state.opt_state))} arrays",
        f"EMA {averages or 'none'}",
        f"timestep sampler {config.diffusion.timestep_sampler} ({history})",
        f"learning rate {rate:.3g} ({ends})",
        f"skipped updates {int(state.skipped)}",
        f"data order at batch {restored.step} of seed {config.seed}",
    ]
    if moved:
        parts.append(f"{moved} later lines moved to metrics.superseded.jsonl")
    return "\n  ".join(parts)


def closing(run_dir, network, workdir, use: str) -> str:
    """Return the last lines: where the run is and how to use it.

    Args:
        use: what it is for and the command, where its network is not the user's own.
    """
    if custom.note(network):
        use = f"sample from it: ddpm_jax.load({str(workdir)!r}, network=…).sample(64)"
    return (
        f"the run is in {run_dir.path}, its curves and grids in "
        f"{run_dir.report.name}\n{use}"
    )


def resume_command(network, workdir) -> str:
    """Return the command that resumes a run."""
    if custom.note(network):
        return f"ddpm_jax.train(config, {str(workdir)!r}, network=…)"
    return f"python -m ddpm_jax.main --workdir={shlex.quote(str(workdir))}"
