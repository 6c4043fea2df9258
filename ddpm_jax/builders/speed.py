"""How much work an image is, and how much the devices can do."""

from ddpm_jax.builders import planning
from ddpm_jax.runtime import hardware


def speed(config, facts, network, device_mesh) -> dict[str, float]:
    """Return what `training.progress.Progress` needs to tell the use of the devices.

    Empty where the peak of the devices is not known, such as that of a CPU.
    """
    kind = device_mesh.devices.flat[0].device_kind
    peak = hardware.peak_flops(kind, config.model.dtype)
    if peak is None:
        return {}
    return {
        "flops_per_image": float(planning.training_flops(config, facts, network)),
        "peak_flops": peak * device_mesh.size,
    }
