"""The forward process and its posterior in float64.

q(x_{t−1} | x_t, x_0) is taken as a product of two densities of x_{t−1}: the marginal
N(√ᾱ_{t−1} x_0, n_{t−1}) and the transition read backwards, N(x_t / √α_t, β_t / α_t).
"""

import math

import numpy as np

from reference import schedules


def column(values, t, like):
    """values[t] as a column against [B, ...]."""
    return np.asarray(values)[t].reshape(len(t), *[1] * (np.ndim(like) - 1))


class Process:
    def __init__(self, betas, *, log_var_floor="next"):
        self.beta = np.asarray(betas, np.float64)
        self.num_steps = len(self.beta)
        self.alpha = 1 - self.beta
        self.alpha_bar = schedules.alpha_bar(self.beta)
        # The noise's variance by its own recursion: a step shrinks it and adds β.
        self.noise_var = np.empty_like(self.beta)
        level = 0.0
        for i, beta in enumerate(self.beta):
            level = self.alpha[i] * level + beta
            self.noise_var[i] = level
        self.alpha_bar_before = np.concatenate([[1.0], self.alpha_bar[:-1]])
        self.noise_var_before = np.concatenate([[0.0], self.noise_var[:-1]])

        # Precisions 1/n_{t−1} and α/β add; both sides multiplied by n_{t−1} β, which
        # keeps t = 0 (n = 0) and β = 1 (α = 0) finite.
        weight = self.beta + self.alpha * self.noise_var_before
        self.posterior_var = self.noise_var_before * self.beta / weight
        self.c1 = self.beta * np.sqrt(self.alpha_bar_before) / weight
        self.c2 = self.noise_var_before * np.sqrt(self.alpha) / weight

        one_step = self.num_steps == 1
        first = self.beta[0] if one_step else self.posterior_var[1]
        self.large_var = np.concatenate([[first], self.beta[1:]])
        if log_var_floor == "next":
            clipped = np.concatenate([[first], self.posterior_var[1:]])
        else:
            clipped = np.maximum(self.posterior_var, 1e-20)
        self.posterior_log_var = np.array([math.log(v) for v in clipped])

    def q_sample(self, x_0, t, noise):
        signal = np.sqrt(column(self.alpha_bar, t, x_0))
        return signal * x_0 + np.sqrt(column(self.noise_var, t, x_0)) * noise

    def posterior(self, x_0, x_t, t):
        mean = column(self.c1, t, x_t) * x_0 + column(self.c2, t, x_t) * x_t
        return mean, column(self.posterior_log_var, t, x_t)

    def target(self, prediction, x_0, t, noise):
        signal = np.sqrt(column(self.alpha_bar, t, x_0))
        spread = np.sqrt(column(self.noise_var, t, x_0))
        x_t = signal * x_0 + spread * noise
        return {
            "noise": lambda: noise,
            "x_0": lambda: x_0,
            "x_prev": lambda: self.posterior(x_0, x_t, t)[0],
            "v": lambda: signal * noise - spread * x_0,
        }[prediction]()

    def x_0_from(self, prediction, output, x_t, t):
        """Solve the definition of what is predicted for x_0, given x_t."""
        signal = np.sqrt(column(self.alpha_bar, t, x_t))
        spread = np.sqrt(column(self.noise_var, t, x_t))
        if prediction == "noise":
            return (x_t - spread * output) / signal
        if prediction == "x_0":
            return output
        if prediction == "x_prev":
            c1, c2 = column(self.c1, t, x_t), column(self.c2, t, x_t)
            return (output - c2 * x_t) / c1
        return signal * x_t - spread * output

    def noise_from_x_0(self, x_0, x_t, t):
        signal = np.sqrt(column(self.alpha_bar, t, x_t))
        return (x_t - signal * x_0) / np.sqrt(column(self.noise_var, t, x_t))
