"""Devices, checkpoints, run directories, interruption."""
