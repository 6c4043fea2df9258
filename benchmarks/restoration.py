"""Are the draws of a restoration calibrated? On Gaussian images, and on digits.

    python benchmarks/restoration.py gaussian
    python benchmarks/restoration.py digits --run=runs/digits_unconditional --images=60

"gaussian" draws images of a known law, measures them, and restores them with the exact
denoiser: for every operator and likelihood it prints which share of the draws lies in
the 50 % and 90 % intervals of the true posterior, pixel by pixel, and the mean squared
distance of the draws from its mean in its own deviations, which is 1 for its draws.

"digits" does it with a trained run and test digits, of which only the truth is known:
which share of the true pixels lies in the intervals of 19 draws, which are 50 % and
90 % exactly, and the PSNR of their mean and of a draw.
"""

import argparse
import functools
import time

import jax
import numpy as np

import ddpm_jax
from ddpm_jax.data import images as images_lib
from ddpm_jax.data import sources
from ddpm_jax.diffusion import (
    process,
    reconstruction,
    respacing,
    reverse,
    samplers,
    schedules,
)
from ddpm_jax.editing import measurements, operators
from ddpm_jax.metrics import enlarging, restoration

OPERATORS = ("superres:2", "blur:1", "missing:0.5", "denoise")  # and grey, of colours
GREYS, COLOURS = (8, 8, 1), (4, 4, 3)
NOISE = 0.1
DRAWS = 19  # whose intervals are 50 % and 90 % exactly
WIDTHS = (0.6745, 1.6449)  # of the 50 and 90 % intervals of N(0, 1), one side
LENGTH = 1000

# ---- Gaussian images -----------------------------------------------------------------


def covariance(shape, condition):
    """Return the covariance of smooth images of this shape, of unit variance."""
    apart = [np.abs(np.subtract.outer(np.arange(n), np.arange(n))) for n in shape]

    def along(reach):
        return [np.exp(-one / reach) for one in apart]

    low, high = 1e-2, 10.0
    for _ in range(60):
        middle = np.sqrt(low * high)
        is_less = np.prod([np.linalg.cond(one) for one in along(middle)]) < condition
        low, high = (middle, high) if is_less else (low, middle)
    return functools.reduce(np.kron, along(low))


def dense(operator, shape):
    """Return A as a matrix, and which of its rows measure something."""
    size = int(np.prod(shape))
    basis = np.eye(size, dtype=np.float32).reshape(size, *shape)
    columns = operator.of(np.zeros(size, int)).forward(basis)
    matrix = np.asarray(columns, np.float64).reshape(size, -1).T
    return matrix, np.any(matrix != 0, axis=1)


@functools.cache
def chain(likelihood, iterations, noise, shape):
    """Return the compiled chain of a likelihood for data with the given denoiser."""

    def sample(tables, matrices, entries, stop, operator, measured, key):
        count = len(measured)

        def network(x_t, t_seen):
            flat = x_t.reshape(count, -1)
            noise = flat @ matrices[t_seen[0]]
            return noise.reshape(x_t.shape)

        def noise_fn(position):
            return jax.random.normal(jax.random.fold_in(key, position), (count, *shape))

        guided = reconstruction.reconstruction(
            tables,
            operator,
            measured,
            likelihood=likelihood,
            iterations=iterations,
            measurement_std=noise,
        )
        denoise = reverse.Denoiser(tables, network, "noise", "fixed_small", ())
        loop = samplers.Loop(
            tables,
            guided(denoise),
            samplers.ancestral(),
            noise_fn,
            np.zeros(0, np.int32),
            frozenset((samplers.STEP,)),
        )
        return samplers.run(loop, noise_fn(10**6), entries, stop).x

    return jax.jit(sample)


class Law:
    """Gaussian images, their denoiser, and a process."""

    def __init__(self, shape, args):
        self.shape, size = shape, int(np.prod(shape))
        self.data = args.variance * covariance(shape, args.condition)
        schedule = process.Schedule.from_betas(schedules.make_betas("linear", LENGTH))
        alpha_bar = schedule.alpha_bar[:, None, None]
        # E[noise | x_t] = √(1−ᾱ) (ᾱ S + (1−ᾱ) I)⁻¹ x_t
        inverse = np.linalg.inv(alpha_bar * self.data + (1 - alpha_bar) * np.eye(size))
        self.given = (
            process.padded_tables(respacing.respace(schedule, args.steps), LENGTH),
            np.float32(np.sqrt(1 - alpha_bar) * inverse),
            samplers.entries(samplers.sampling_path(args.steps), LENGTH),
            np.int32(args.steps),
        )

    def images(self, count, random):
        """Return images [count, *shape] of the law."""
        root = np.linalg.cholesky(self.data)
        rows = random.normal(size=(count, len(root))) @ root.T
        return rows.reshape(-1, *self.shape).astype(np.float32)

    def posterior(self, operator, noise, y):
        """Return means [n, d] and deviations [d] of the true posterior."""
        matrix, rows = dense(operator, self.shape)
        matrix, y = matrix[rows], y.reshape(len(y), -1)[:, rows]
        seen = matrix @ self.data @ matrix.T + noise**2 * np.eye(len(matrix))
        gain = self.data @ matrix.T @ np.linalg.inv(seen)
        return y @ gain.T, np.sqrt(np.diag(self.data - gain @ matrix @ self.data))


def distances(args, seed=0):
    """Yield operator, likelihood, distances from the true mean, and the seconds taken.

    Distances [n, d] are signed, and in the deviations of the true posterior.
    """
    random = np.random.default_rng(seed)
    for name in args.operators.split(","):
        law = Law(COLOURS if name == "grey" else GREYS, args)
        images = law.images(args.images, random)
        operator = operators.of_name(name, operators.Measured(law.shape))
        operator = operator.of(np.zeros(args.images, int))  # one mask for all
        y = np.asarray(operator.forward(images))
        y = y + np.float32(args.noise) * random.standard_normal(y.shape, np.float32)
        y = measurements.without_holes(operator, y)
        middle, deviation = law.posterior(operator, args.noise, y)
        for likelihood in args.likelihoods.split(","):
            began = time.perf_counter()
            make = chain(likelihood, args.iterations, args.noise, law.shape)
            made = make(*law.given, operator, y, jax.random.key(1 + seed))
            made = np.asarray(made, np.float64).reshape(middle.shape)
            off = (made - middle) / deviation
            yield name, likelihood, off, time.perf_counter() - began


def gaussian(args):
    """Print the table of Gaussian images."""
    print(
        f"{args.images} images of variance {args.variance:g}, condition "
        f"{args.condition:g}; noise {args.noise:g}, {args.steps} steps"
    )
    for name, likelihood, off, seconds in distances(args):
        shares = [np.mean(np.abs(off) < width, axis=1) for width in WIDTHS]
        told = ", ".join(
            f"{100 * s.mean():.1f} ± {100 * s.std() / len(s) ** 0.5:.1f} %"
            for s in shares
        )
        print(
            f"{name:12} {likelihood:6} in the 50 and 90 % intervals: {told}; "
            f"squared distance {np.mean(off**2):.3f} ({seconds:.0f} s)",
            flush=True,
        )


# ---- digits --------------------------------------------------------------------------


def digits(args):
    """Print the table of test digits."""
    run = ddpm_jax.load(args.run)
    test = sources.load("digits", "test")
    chosen = np.linspace(0, len(test) - 1, args.images).astype(int)
    batch = test.fetch(chosen)
    truth = batch["image"]
    labels = tuple(batch["label"].tolist()) if run.class_names and args.labels else None
    config = run.config
    for name in args.operators.split(","):
        asked = operators.Measured(truth.shape[1:], len(truth))
        operator = operators.of_name(name, asked)
        config.editing.noise = args.noise
        y = measurements.measured(config, operator, truth)
        y = measurements.with_nan(operator, y)
        for likelihood in args.likelihoods.split(","):
            began = time.perf_counter()
            made = run.restore(
                y,
                name,
                noise=args.noise,
                draws=args.draws,
                likelihood=likelihood,
                labels=labels,
                steps=args.steps,
                batch_size=256,
                editing={"iterations": args.iterations},
            )
            values = images_lib.from_stored(made)
            flat = values.reshape(-1, *values.shape[2:])
            own = enlarging.squared_error(flat, truth.repeat(args.draws, axis=0))
            mean = values.mean(axis=1, dtype=np.float64)
            error = enlarging.squared_error(mean, truth)
            found = restoration.ranks(
                restoration.on_levels(values, 17), restoration.on_levels(truth, 17)
            ).astype(float)
            if name.startswith("missing") and not args.noise:
                found = np.where(operator.hole, found, np.nan)
            told = []
            for share in restoration.SHARES:
                one = restoration.coverage(found, args.draws, share)
                told.append(
                    f"{100 * one.nominal:.0f} %: {100 * one.share:.1f} ± "
                    f"{100 * one.error:.1f}"
                )
            spread = 10 / np.log(10) * error.std() / error.mean() / len(error) ** 0.5
            print(
                f"{name:12} noise {args.noise:g} {likelihood:6} mean "
                f"{enlarging.psnr(error):.2f} ± {spread:.2f} dB, a draw "
                f"{enlarging.psnr(own):.2f} dB; truth in {'; '.join(told)} "
                f"({time.perf_counter() - began:.0f} s)",
                flush=True,
            )


def parser():
    """Return the flags."""
    flags = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    flags.add_argument("data", choices=("gaussian", "digits"))
    flags.add_argument("--run", default="runs/digits_unconditional")
    flags.add_argument("--images", type=int, default=256)
    flags.add_argument("--steps", type=int, default=250)
    flags.add_argument("--iterations", type=int, default=5)
    flags.add_argument("--condition", type=float, default=25.0)
    flags.add_argument("--variance", type=float, default=1.0)
    flags.add_argument("--noise", type=float, default=NOISE)
    flags.add_argument("--draws", type=int, default=DRAWS)
    flags.add_argument("--labels", action="store_true")
    flags.add_argument("--operators", default=",".join(OPERATORS))
    flags.add_argument("--likelihoods", default=",".join(reconstruction.LIKELIHOODS))
    return flags


def main():
    """Measure and print."""
    args = parser().parse_args()
    {"gaussian": gaussian, "digits": digits}[args.data](args)


if __name__ == "__main__":
    main()
