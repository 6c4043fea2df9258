"""What the papers claim, as small experiments with error bars.

    python -m benchmarks.claims cosine     one claim: train, measure, write its page
    python -m benchmarks.claims all        all of them, going on where it stopped
    python -m benchmarks.claims --list     claims, verdicts, and what is not yet run
    python -m benchmarks.claims --render   all pages from the stored results alone

A claim (`statements_ddpm.py`, `statements_improved.py`, `statements_guidance.py`) is
some inequalities between measured numbers, written down before the runs. Claims share
trained runs, the arms (`arms.py`), and what is measured on them (`measures.py`). The
numbers lie in `results/`, one file for each arm and seed; `evidence.py` makes verdicts
of them and `pages.py` the pages in docs/claims.
"""
