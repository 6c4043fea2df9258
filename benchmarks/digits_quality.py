"""Judge samples of digits by a classifier, and name the baseline of bits per dimension.

python benchmarks/digits_quality.py runs/digits/samples/<tag>/samples.npz

The classifier is scikit-learn's SVC(gamma="scale"), fitted on the real training split.
The baseline is the histogram of each pixel over the training split, add-one smoothed.
"""

import sys

import numpy as np
from sklearn import svm

from ddpm_jax.data import sources


def split(name):
    """Return grey levels 0 … 16 as [n, 64] and labels [n] of a split."""
    dataset = sources.load("digits", name)
    batch = dataset.fetch(np.arange(len(dataset)))
    levels = np.rint((batch["image"] + 1) * 8).astype(int)
    return levels.reshape(len(levels), -1), batch["label"]


def histogram_bits(train, test):
    """Return the mean bits per pixel of `test` under the histograms of `train`."""
    counts = np.stack([(train == level).sum(axis=0) for level in range(17)]) + 1
    probability = counts / counts.sum(axis=0)
    return -np.log2(probability[test, np.arange(test.shape[1])]).mean()


def main(path):
    """Print the three numbers."""
    train, train_labels = split("train")
    test, test_labels = split("test")
    classifier = svm.SVC(gamma="scale").fit(train, train_labels)
    with np.load(path, allow_pickle=False) as samples:
        images, labels = samples["arr_0"], samples["arr_1"]
    # uint8 back to the scale of the levels
    pixels = images.reshape(len(images), -1) * (16 / 255)
    print(f"real test digits: {classifier.score(test, test_labels):.1%} agree")
    print(f"{len(images)} samples: {classifier.score(pixels, labels):.1%} agree")
    print(f"histogram of each pixel: {histogram_bits(train, test):.3f} bits/dim")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
