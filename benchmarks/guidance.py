"""What guidance and steps cost: time by kind of guidance, memory by number of steps.

    python benchmarks/guidance.py --batch=64

It takes the network of digits, which knows labels and no label. The rounds go guided,
plain, guided, plain, …, all by the program of --mode=sample for the same images.
Classifier-free guidance evaluates the network for twice as many examples. Memory is
that of the compiled programs, by XLA: the path is data, so that one program serves all
numbers of steps.
"""

import statistics
import time

import jax
import numpy as np
import presets

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.sampling import sampler


def compiled(setting, labels, **sampling):
    """Return the program of a setting, and its arguments."""
    setting.config.sampling.update(sampling)
    recipe = build_sampling.recipe(setting.config, setting.facts)
    made_by = sampler.Sampler(recipe, setting.network, setting.mesh)
    index = np.arange(setting.config.train.batch_size, dtype=np.int32)
    given = setting.params, index, {"label": labels}
    return made_by.lower(*given).compile(), made_by.arguments(*given)


def seconds(program, arguments):
    """Return how long a batch takes."""
    began = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - began


def parser():
    """Return the flags."""
    flags = presets.parser(__doc__)
    flags.add_argument("--sampling-steps", type=int, default=10)
    flags.set_defaults(preset="digits", batch=64)
    return flags


def race(args):
    """Return the ratio of every round, and the programs whose memory is compared."""
    setting = presets.setting(args, remat="none")
    labels = np.zeros(setting.config.train.batch_size, np.int32)
    few = {"method": "ddim", "steps": args.sampling_steps}
    plain = compiled(setting, labels, **few, guidance_scale=1.0)
    guided = compiled(setting, labels, **few, guidance_scale=3.0)
    many = compiled(setting, labels, method="ddim", steps=10 * args.sampling_steps)
    for program in (plain, guided):
        seconds(*program)
    ratios = []
    for number in range(args.rounds):
        ratios.append(seconds(*guided) / seconds(*plain))
        print(f"round {number + 1}: guided / plain {ratios[-1]:.3f}")
    return ratios, {"guided": guided[0], "ten times the steps": many[0]}


def main():
    """Measure and print."""
    ratios, programs = race(parser().parse_args())
    print(
        f"median {statistics.median(ratios):.3f}, {min(ratios):.3f} … {max(ratios):.3f}"
    )
    for name, program in programs.items():
        found = program.memory_analysis()
        print(f"{name}: {found.temp_size_in_bytes / 2**20:.1f} MiB of temporaries")


if __name__ == "__main__":
    main()
