"""What a scheduler_config.json of diffusers says of sampling that we do otherwise."""

from collections.abc import Iterable, Mapping

SCHEDULER = "scheduler/scheduler_config.json"
CARRIED_OTHERWISE = (
    "variance_type",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    # Of solvers that are not carried over, which is described by their name.
    "skip_prk_steps",
    "solver_order",
    "algorithm_type",
    "solver_type",
    "lower_order_final",
    "euler_at_final",
    "final_sigmas_type",
)


def of_another_class(kind: str) -> str:
    """Return that the solver of a scheduler's class is not carried over."""
    return _sentence("_class_name", kind, "ours are those of sampling.method")


def not_carried(config: Mapping[str, object], carried: Iterable[str]) -> list[str]:
    """Return what a scheduler does otherwise than our samplers, a sentence each.

    Args:
        config: scheduler_config.json.
        carried: the keys that become fields of ours.
    """
    lines = []

    def say(key, value, changes):
        lines.append(_sentence(key, value, changes))

    spacing = config.get("timestep_spacing", "leading")
    if spacing == "leading" and not config.get("steps_offset"):
        say(
            "timestep_spacing",
            spacing,
            "fewer steps than T are spaced over all of it here; "
            "sampling.respacing=ddim50 takes the timesteps of diffusers, for 50",
        )
    elif spacing != "linspace":
        say(
            "timestep_spacing",
            spacing,
            "fewer steps than T are other timesteps here, so images differ a little; "
            "with all T steps they do not",
        )
    if config.get("steps_offset"):
        say(
            "steps_offset",
            config["steps_offset"],
            "timesteps of fewer steps than T are not moved up here",
        )
    if config.get("set_alpha_to_one", True) is False:
        say(
            "set_alpha_to_one",
            False,
            "the last step goes to the image without noise here, and to the noise of "
            "step 0 there",
        )
    known = {*carried, *CARRIED_OTHERWISE}
    lines += [
        f"{key} = {value!r} of {SCHEDULER} is not known here and was skipped: what "
        "it changes there is not done"
        for key, value in config.items()
        if key not in known and not key.startswith("_") and value not in (None, False)
    ]
    return lines


def _sentence(key, value, changes):
    return f"{key} = {value!r} of {SCHEDULER} is not carried over: {changes}"
