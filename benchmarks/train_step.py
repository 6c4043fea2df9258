"""Race one train step against the same network in PyTorch, in the same run.

    pip install -e . torch
    python benchmarks/train_step.py --preset=iddpm_cifar10 --batch=8
    python benchmarks/train_step.py --preset=adm64 --batch=64 --dtype=bfloat16

Ours is the program that training compiles for this config: draws, loss, gradient, Adam,
EMA and the check for finite numbers, with a donated state. PyTorch's is `torch_unet`
with the same loss, fused Adam and EMA, channels_last; on a GPU also under
`torch.compile`, and with autocast where ours computes in bfloat16. Both begin with the
same weights, and their losses are compared before the race. They take turns.

Printed are rows for RESULTS.md. A ratio above 1 says that ours is faster. "compile" is
the time of lowering and compiling, for PyTorch that of the first step. Peak memory is
the device's; on a CPU that of the process before PyTorch is imported. MFU is given
where the device's peak is known.
"""

import time

import jax
import numpy as np
import presets

from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import step as build_step
from ddpm_jax.builders import training as build_training
from ddpm_jax.diffusion import losses, process
from ddpm_jax.runtime import cost, sharding

TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}  # of the losses, relative


class Ours:
    """Our train step and its state."""

    def __init__(self, setting, batch):
        config, mesh = setting.config, setting.mesh
        abstract = build_training.abstract_state(config, setting.network, mesh)
        step = build_step.train_step(config, setting.facts, setting.network)
        began = time.perf_counter()
        wanted = build_step.abstract_batch(config, setting.facts, setting.network, mesh)
        jitted = build_step.jitted_step(step, abstract, mesh)
        self.compiled = jitted.lower(abstract, wanted).compile()
        self.compile_seconds = time.perf_counter() - began
        self.fresh = lambda: build_training.initial_state(
            config, setting.params, abstract
        )
        self.state = self.fresh()
        self.batch = sharding.put_batch(mesh, batch)

    def run(self, steps):
        """Take steps, wait for them and return their number."""
        for _ in range(steps):
            self.state, metrics = self.compiled(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return steps


def compare_losses(setting, trainer, batch):
    """Stop unless both codes compute the same losses, draws and weights being equal."""
    config, size = setting.config, len(batch["image"])
    tables = process.tables(build_process.schedule(config))
    rng = np.random.default_rng(1)
    t = rng.integers(0, tables.num_steps, size).astype(np.int32)
    t[0] = 0  # the decoder's term
    noise = rng.standard_normal(batch["image"].shape, np.float32)
    labels = batch.get("label")
    condition = {} if labels is None else {"label": labels}

    def ours(params):
        return losses.training_losses(
            tables,
            lambda x, seen: setting.network.apply(params, x, seen, condition),
            batch["image"],
            t,
            noise,
            **build_process.objective(config, setting.facts),
        )["loss"]

    # Run once: compiling in haste is faster.
    options = {"xla_backend_optimization_level": 0}
    on_cpu = jax.default_backend() == "cpu"
    ours = jax.jit(ours, compiler_options=options if on_cpu else None)
    ours = np.asarray(ours(setting.params))
    arguments = [None if v is None else trainer.tensor(v) for v in (t, noise, labels)]
    trainer.module.eval()
    theirs = trainer.example_losses(trainer.batch["image"], *arguments)
    trainer.module.train()
    theirs = theirs.detach().cpu().numpy()
    print(f"losses: ours {ours.mean():.6f}, PyTorch {theirs.mean():.6f}")
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[config.model.dtype])


def parser():
    """Return the flags."""
    flags = presets.parser(__doc__)
    flags.add_argument("--steps", type=int, default=1, help="steps of a round")
    flags.add_argument("--dropout", type=float, default=0.0, help="in both")
    flags.add_argument("--remat", default="none", help="config.model.remat, ours only")
    return flags


def race(args):
    """Race; return the setting, what was found of each, and the FLOPs of a batch."""
    setting = presets.setting(args, dropout=args.dropout, remat=args.remat)
    batch = presets.images(setting)
    ours = Ours(setting, batch)
    ours.run(3)
    if args.profile:
        with jax.profiler.trace(args.profile):
            ours.run(3)
    entries = [("ddpm_jax", ours.compile_seconds, presets.device_memory())]
    contenders = {"ddpm_jax": lambda: ours.run(args.steps)}
    for name, options in presets.rivals(args).items():
        import torch_training

        trainer = torch_training.Trainer(setting, batch, **options)
        if trainer.mode is None:
            compare_losses(setting, trainer, batch)
        seconds = trainer.warm_up()
        entries.append((name, seconds if trainer.mode else None, trainer.memory()))
        contenders[name] = lambda trainer=trainer: trainer.run(args.steps)
    flops = cost.TRAINING_PASSES * args.batch * presets.forward_flops(setting)
    return setting, presets.results(contenders, entries, args.rounds), flops


def main():
    """Race and print."""
    presets.print_table(*race(parser().parse_args()))


if __name__ == "__main__":
    main()
