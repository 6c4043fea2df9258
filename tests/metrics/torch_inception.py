"""A program: random weights in torch-fidelity's Inception, and what it makes of images.

    python torch_inception.py FOLDER     reads images.npy, uint8 [N, H, W, 3]
                                         writes weights.pth and expected.npz

It runs in a process of its own: torch-fidelity as a package wants torchvision, so only
its modules of Inception are imported, under an empty package.
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import torch


def import_network():
    spec = importlib.util.find_spec("torch_fidelity")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["torch_fidelity"] = package
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class RandomWeights(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args):  # its constructor loads a file
            return None

    return RandomWeights


def randomise(network, images):
    """Draw the weights, and take the norms' statistics from some other images."""
    torch.manual_seed(0)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for name, parameter in network.named_parameters():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(parameter)
    for norm in norms:
        norm.momentum = None  # the mean over the passes, here of one
        norm.train()
    network(255 - images)
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3)
        norm.running_var *= 1.3
        norm.eval()


def main(folder):
    images = torch.from_numpy(np.load(folder / "images.npy").transpose(0, 3, 1, 2))
    torch.save({}, folder / "empty.pth")
    names = ["2048", "logits_unbiased", "logits"]
    network = import_network()("net", names, folder / "empty.pth")
    seen = {}
    with torch.no_grad():
        randomise(network, images)
        network.Conv2d_1a_3x3.register_forward_pre_hook(
            lambda module, inputs: seen.update(prepared=inputs[0])
        )
        network.Mixed_6d.branch1x1.register_forward_hook(
            lambda module, inputs, output: seen.update(branch=output)
        )
        pool, logits, biased = network(images)
    torch.save(network.state_dict(), folder / "weights.pth")
    np.savez(
        folder / "expected.npz",
        pool=pool,
        logits=logits,
        biased=biased,
        prepared=seen["prepared"].permute(0, 2, 3, 1),
        spatial=seen["branch"].permute(0, 2, 3, 1)[..., :7].flatten(1),
    )


main(pathlib.Path(sys.argv[1]))
