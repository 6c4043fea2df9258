"""Weights as files of other programs."""
