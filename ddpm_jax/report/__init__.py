"""Plots and pages that show a run."""
