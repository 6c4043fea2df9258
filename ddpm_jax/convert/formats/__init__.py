"""The codes whose weights are understood, one file each."""
