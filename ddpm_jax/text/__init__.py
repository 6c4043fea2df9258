"""Tokenizers: from a text to integers, and back."""
