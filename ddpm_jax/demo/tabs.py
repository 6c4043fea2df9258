"""The tabs of the page, in the order in which they stand."""

from ddpm_jax.demo import (
    jobs,
    tab_animate,
    tab_between,
    tab_how,
    tab_inpaint,
    tab_restore,
    tab_sample,
    tab_vary,
)
from ddpm_jax.demo.player import Job, Player

TABS = (
    tab_sample,
    tab_inpaint,
    tab_vary,
    tab_between,
    tab_restore,
    tab_animate,
    tab_how,
)


def of(player: Player) -> list[tuple]:
    """Return title, reason why the run cannot, and what adds it, of each tab."""
    return [(tab.TITLE, tab.reason(player), tab.add) for tab in TABS]


def first_jobs(player: Player) -> list[Job]:
    """Return jobs whose programs the first clicks need."""
    if tab_sample.reason(player):
        return []
    found = [jobs.sample(player)]
    if jobs.can_guide(player):
        found.append(jobs.sample(player, guidance=2.0))
    return found
