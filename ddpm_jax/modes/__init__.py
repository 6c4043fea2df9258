"""One story per mode, each read from top to bottom."""
