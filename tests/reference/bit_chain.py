"""Chains of D bits by enumeration of all 2^D states, in float64.

A step draws a bit anew from Bernoulli(m) with probability β and else keeps it; a matrix
[from, to] says so for one bit, Kronecker products for all.
"""

import functools
import itertools

import numpy as np


def states(num_bits):
    """All states [2^D, D], in the order of the matrices' rows."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=num_bits)))


def bit_matrix(beta, mean):
    return (1 - beta) * np.eye(2) + beta * np.tile([1 - mean, mean], (2, 1))


def of_all(one, num_bits):
    return functools.reduce(np.kron, [one] * num_bits)


class Chain:
    def __init__(self, betas, mean, num_bits):
        self.states = states(num_bits)
        self.kernels = [of_all(bit_matrix(b, mean), num_bits) for b in betas]
        self.prior = of_all(np.array([1 - mean, mean]), num_bits)
        self.marginals = [np.eye(2**num_bits)]  # [x_0, x_t], the first of t = 0
        for kernel in self.kernels:
            self.marginals.append(self.marginals[-1] @ kernel)

    def posterior(self, t):
        """q(x_{t−1} | x_t, x_0) as [x_0, x_t, x_{t−1}], t zero-based."""
        joint = self.marginals[t][:, :, None] * self.kernels[t][None]
        joint = joint.transpose(0, 2, 1)
        return joint / joint.sum(axis=2, keepdims=True)

    def index(self, x):
        return (np.asarray(x) @ (2 ** np.arange(self.states.shape[1])[::-1])).astype(
            int
        )


def reverse_matrix(chances):
    """[x_t, x_{t−1}] of independent bits that are 1 with chances [x_t, D]."""
    all_states = states(chances.shape[1])
    each = np.where(all_states[None] == 1, chances[:, None], 1 - chances[:, None])
    return each.prod(axis=2)
