"""Weights of other codes: reading, recognising, mapping, writing."""
