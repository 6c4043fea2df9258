"""Arrays, keys, errors and types: what every layer may use."""
