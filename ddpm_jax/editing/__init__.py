"""Editing given pictures with a trained run."""
