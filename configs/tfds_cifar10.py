"""An example of an image set prepared by TensorFlow Datasets, under its TFDS name.

    pip install 'ddpm-jax[tfds]'
    python -m ddpm_jax.main --config=configs/tfds_cifar10.py

`data.name` is "tfds:" and the name of any TFDS set with images and class labels.
Reading needs no TensorFlow; preparing the set once does, and the refusal you get where
it is missing prints the commands. `--config.data.path=DIR` names the TFDS directory.

Numbers: as in cifar10_iddpm.py, with classes and label drop-out, so that samples can be
guided. Result to expect: not measured by us. Cost: as cifar10_iddpm.py.
"""

import cifar10_iddpm  # configs/cifar10_iddpm.py: a config can import its neighbours


def get_config():
    """Return the configuration."""
    config = cifar10_iddpm.get_config()
    config.data.name = "tfds:cifar10"
    config.model.class_conditional = True
    config.train.label_dropout = 0.1
    return config
