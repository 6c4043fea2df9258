"""The run on disk: its directory, checkpoints, records."""
