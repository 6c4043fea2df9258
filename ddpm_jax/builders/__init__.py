"""From a config or a run's directory to plain objects: the last readers of a config.

Import the module and call it by its name: `from ddpm_jax.builders import process as
build_process`, then `build_process.schedule(config)`.
"""
