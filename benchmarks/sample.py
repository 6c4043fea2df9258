"""Race sampling against the same network in PyTorch, in the same run.

    pip install -e . torch
    python benchmarks/sample.py --preset=iddpm_cifar10 --batch=8 --sampling-steps=10
    python benchmarks/sample.py --preset=adm64 --batch=64 --dtype=bfloat16

Ours is the program of --mode=sample: the whole chain of DDIM steps (η = 0, x̂_0
clipped) as one compiled loop. PyTorch's is `torch_unet` in a loop, channels_last, under
inference_mode; on a GPU also with `torch.compile`, and with autocast where ours
computes in bfloat16. Both go from the same x_T with the same weights, and their images
are compared before the race. They take turns; milliseconds are of a batch of images.

The columns are those of train_step.py.
"""

import time

import jax
import numpy as np
import presets

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import keys
from ddpm_jax.sampling import sampler

# The most that pixels may differ by on average; their range is [−1, 1].
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


class Ours:
    """Our sampler, compiled for a batch."""

    def __init__(self, setting, labels):
        config, size = setting.config, setting.config.train.batch_size
        self.recipe = build_sampling.recipe(config, setting.facts)
        index = np.arange(size, dtype=np.int32)
        condition = {} if labels is None else {"label": labels}
        made_by = sampler.Sampler(self.recipe, setting.network, setting.mesh)
        self.arguments = made_by.arguments(setting.params, index, condition)
        began = time.perf_counter()
        self.compiled = made_by.lower(setting.params, index, condition).compile()
        self.compile_seconds = time.perf_counter() - began
        key = keys.key_for(self.recipe.seed, "sample/x_T", index=index)
        self.x_T = keys.normal_each(key, self.recipe.shape)

    def sample(self):
        """Return images [B, H, W, C]."""
        return jax.block_until_ready(self.compiled(*self.arguments)).x

    def run(self):
        """Make a batch and return the number of batches."""
        self.sample()
        return 1


def compare_images(ours, theirs, dtype):
    """Stop unless both codes make the same images."""
    theirs = theirs.permute(0, 2, 3, 1).cpu().numpy()
    difference = np.mean(np.abs(np.asarray(ours) - theirs))
    print(f"images: mean |difference| {difference:.1e}")
    if difference > TOLERANCE[dtype]:
        raise SystemExit(f"they differ by more than {TOLERANCE[dtype]}: no race")


def parser():
    """Return the flags."""
    flags = presets.parser(__doc__)
    flags.add_argument("--sampling-steps", type=int, default=50)
    return flags


def race(args):
    """Race; return the setting, what was found of each, and the FLOPs of a batch."""
    setting = presets.setting(args, remat="none")
    config = setting.config
    config.sampling.update({"method": "ddim", "steps": args.sampling_steps, "eta": 0.0})
    labels = presets.images(setting).get("label")
    ours = Ours(setting, labels)
    made = ours.sample()
    if args.profile:
        with jax.profiler.trace(args.profile):
            ours.run()
    entries = [("ddpm_jax", ours.compile_seconds, presets.device_memory())]
    contenders = {"ddpm_jax": ours.run}
    for name, options in presets.rivals(args).items():
        import torch_training

        chain = (ours.recipe.schedule, ours.x_T, labels)
        rival = torch_training.Sampler(setting, *chain, **options)
        began = time.perf_counter()
        theirs = rival.sample()
        seconds = time.perf_counter() - began
        compare_images(made, theirs, args.dtype)
        rival.run()
        entries.append((name, seconds if rival.mode else None, rival.memory()))
        contenders[name] = rival.run
    flops = args.sampling_steps * args.batch * presets.forward_flops(setting)
    return setting, presets.results(contenders, entries, args.rounds), flops


def main():
    """Race and print."""
    presets.print_table(*race(parser().parse_args()))


if __name__ == "__main__":
    main()
