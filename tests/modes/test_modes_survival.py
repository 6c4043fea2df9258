"""Training that is killed again and again, and training that lasts."""

import signal
import time

import numpy as np
import processes
import pytest
from small_runs import STEPS, TINY, assert_same_bits, checkpoints, metrics

SEED = 5
KILLS = 20
KILLS_A_RUN = 4
LAST = 12
EVERY = ("--config.train.checkpoint_every=1", "--config.train.log_every=1")
# Few timesteps, so that the sampler's history fills within the run and matters.
LEARNING_T = (
    *TINY,
    "--config.diffusion.schedule=cosine",
    "--config.diffusion.num_steps=4",
    "--config.diffusion.timestep_sampler=loss_second_moment",
    f"--config.train.steps={LAST}",
    *EVERY,
)


def newest(run):
    return max(processes.published(run), default=0)


# What to wait for in a process that began at step `last` of a run, and the longest wait
# after it in seconds.
MOMENTS = {
    "starting": (lambda run, last, process: True, 4.0),
    "compiling": (lambda run, last, process: process.has_said("compiling"), 1.0),
    "training": (lambda run, last, process: process.step > last, 0.5),
    "saving": (
        lambda run, last, process: (
            process.step > last and [*run.glob("checkpoints/staging-*")]
        ),
        0.03,
    ),
    "publishing": (lambda run, last, process: newest(run) > last, 0.01),
    "ending": (lambda run, last, process: newest(run) == LAST, 0.3),
}


def disturb(run, folder, moments, generator, *arguments, **options):
    """Start a run again and again and kill it at one moment after the other.

    Returns:
        The moments at which it was killed, fewer where it came to its end before.
    """
    killed = []
    for moment in moments:
        has_come, longest = MOMENTS[moment]
        wait, said = generator.uniform(0, longest), folder / f"{len(killed)}-{moment}"
        last = newest(run)
        told = kill(run, said, has_come, wait, *arguments, **options)
        if told.status == 0:
            break  # it was faster
        assert told.status == -signal.SIGKILL, told.out + told.err
        killed.append(moment)
        if "compiling" in told.out:
            begins = f"resumed at step {last}\n" if last else "initialising the weights"
            assert begins in told.out
    return killed


def kill(run, said, has_come, wait, *arguments, **options):
    """Start a run and kill it some seconds after a moment; return what it said."""
    last = newest(run)
    arguments = [*arguments, f"--workdir={run}"]
    with processes.started(said, *arguments, **options) as (process,):
        process.wait_for(lambda: has_come(run, last, process))
        time.sleep(wait)
        process.running.kill()
        return process.finish()


def assert_nothing_is_lost(run, expected):
    """A run has the bits, the records and the files of one that was never killed."""
    assert_same_bits(processes.whole_state(run), processes.whole_state(expected))
    found, wanted = (
        [(r["step"], r["loss"]) for r in metrics(folder) if "loss" in r]
        for folder in (run, expected)
    )
    assert found == wanted
    steps = processes.published(run)
    files = [str(step) for step in steps] + [f"{step}.sha256.json" for step in steps]
    assert checkpoints(run) == sorted(files)


def test_three_kills_lose_nothing(first_run, tmp_path, tell):
    run = tmp_path / "run"
    arguments = [*TINY, f"--config.train.steps={STEPS}", *EVERY]
    killed = disturb(
        run,
        tmp_path / "said",
        ["publishing", "saving", "training"],
        np.random.default_rng(SEED),
        *arguments,
        devices=8,
    )
    assert len(killed) == 3
    assert newest(run) > 0
    assert tell(f"--workdir={run}").status == 0
    assert_same_bits(processes.whole_state(run), processes.whole_state(first_run[0]))
    steps = [record["step"] for record in metrics(run)]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    generator = np.random.default_rng(SEED)
    finish = (tmp_path / "said", *LEARNING_T)
    (told,) = processes.told(*finish, f"--workdir={tmp_path / 'undisturbed'}")
    assert told.status == 0, told.out + told.err
    killed = []
    while len(killed) < KILLS:
        run = tmp_path / f"run-{len(killed)}"
        moments = generator.choice([*MOMENTS], min(KILLS_A_RUN, KILLS - len(killed)))
        said = tmp_path / f"said-{len(killed)}"
        killed += disturb(run, said, moments, generator, *LEARNING_T)
        (told,) = processes.told(*finish, f"--workdir={run}")
        assert told.status == 0, told.out + told.err
        assert_nothing_is_lost(run, tmp_path / "undisturbed")
    assert len(set(killed)) >= 4
    history = processes.whole_state(run)[".timesteps.counts"]
    assert (history == 10).all()  # t was drawn by what the losses were


# ---- what a long run uses ------------------------------------------------------------


LOOKING = ("sample_every", "validate_every", "evaluate_every", "checkpoint_every")


def looking(every):
    return [f"--config.train.{name}={every}" for name in LOOKING]


def test_nothing_is_compiled_anew(tmp_path, tell):
    run = tmp_path / "run"
    told = tell(*TINY, f"--workdir={run}", "--config.train.steps=15", *looking(3))
    assert told.status == 0, told.err
    counts = {r["step"]: r["compilations"] for r in metrics(run) if "loss" in r}
    # The first look, after step 3, compiles; the second and third do the same again.
    after = [count for step, count in counts.items() if step > 3]
    assert len(after) > 6
    assert len(set(after)) == 1, counts


@pytest.mark.slow
def test_two_thousand_steps_use_no_more_memory_than_four_hundred(tmp_path):
    run = tmp_path / "run"
    (told,) = processes.told(
        tmp_path / "said",
        *TINY,
        f"--workdir={run}",
        "--config.train.steps=2000",
        "--config.train.log_every=50",
        *looking(200),
    )
    assert told.status == 0, told.out + told.err
    records = [record for record in metrics(run) if "loss" in record]
    later = [record for record in records if record["step"] > 400]
    mebibytes = [1024 * record["host_memory_gib"] for record in later]
    assert len(later) == 32
    assert max(mebibytes) - mebibytes[0] < 30, mebibytes
    assert len({record["compilations"] for record in later}) == 1, later
