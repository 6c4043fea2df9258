import time

from ddpm_jax.runtime import hang_watch


def wait_inside_of_this_function(seconds):
    time.sleep(seconds)


def test_a_hang_is_told_with_the_stack_it_happens_in(capfd):
    with hang_watch.HangWatchdog(limit=0.2) as watch:
        watch.beat("taking step 7")
        wait_inside_of_this_function(1.0)
    told = capfd.readouterr().err
    assert "s while taking step 7" in told
    assert "in wait_inside_of_this_function" in told


def test_beats_keep_it_quiet(capfd):
    with hang_watch.HangWatchdog(limit=0.5) as watch:
        for step in range(20):
            watch.beat(f"taking step {step}")
            time.sleep(0.05)
    assert capfd.readouterr().err == ""


def test_nothing_is_expected_of_a_rest(capfd):
    with hang_watch.HangWatchdog(limit=0.1) as watch:
        watch.rest()
        time.sleep(0.4)
    assert capfd.readouterr().err == ""
