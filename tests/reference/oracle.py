"""Gaussian data x_0 ~ N(m, s²), coordinate by coordinate: everything is known exactly.

x_t = √ᾱ x_0 + √n ε is Gaussian with variance v = ᾱ s² + n, so each conditional
expectation given x_t is a regression line, every chain is an affine recursion of
Gaussians, and the expected terms of the bound are closed forms. Tables are [T, C].
"""

from typing import NamedTuple

import numpy as np

from reference import likelihood


class Line(NamedTuple):
    """E[· | x_t] = intercept + slope · x_t."""

    intercept: np.ndarray
    slope: np.ndarray


class Oracle:
    def __init__(self, process, mean, std):
        self.process = process
        self.mean = np.asarray(mean, np.float64)
        self.data_var = np.square(np.asarray(std, np.float64))
        self.signal = np.sqrt(process.alpha_bar)[:, None]
        self.spread = np.sqrt(process.noise_var)[:, None]
        self.center = self.signal * self.mean
        self.var = self.signal**2 * self.data_var + self.spread**2
        before = np.sqrt(process.alpha_bar_before)[:, None]
        self.center_before = before * self.mean
        self.var_before = before**2 * self.data_var + process.noise_var_before[:, None]

    def regress(self, center, covariance):
        slope = covariance / self.var
        return Line(center - slope * self.center, slope)

    def optimal(self, prediction):
        """The line that minimises the squared error of what is predicted."""
        zero = np.zeros_like(self.var)
        if prediction == "x_0":
            return self.regress(zero + self.mean, self.signal * self.data_var)
        if prediction == "noise":
            return self.regress(zero, self.spread + zero)
        if prediction == "v":
            # Cov(√ᾱ ε − √n x_0, √ᾱ x_0 + √n ε) = √(ᾱ n) (1 − s²)
            return self.regress(
                zero - self.spread * self.mean,
                self.signal * self.spread * (1 - self.data_var),
            )
        # x_t = √α x_{t−1} + √β ε, so Cov(x_{t−1}, x_t) = √α Var x_{t−1}
        alpha = self.process.alpha[:, None]
        return self.regress(self.center_before, np.sqrt(alpha) * self.var_before)

    @property
    def reverse_var(self):
        """Var[x_{t−1} | x_t]: the best variance of a reverse step, [T, C]."""
        return self.var_before * self.process.beta[:, None] / self.var

    @property
    def residual_var(self):
        """Var[x_0 | x_t], [T, C]."""
        return self.data_var * self.spread**2 / self.var

    # ---- the laws of chains that start from N(0, I) ----------------------------------

    def _run(self, slopes, intercepts, variances, mean, var):
        for a, b, extra in zip(slopes, intercepts, variances, strict=True):
            mean, var = a * mean + b, a * a * var + extra
        return mean, var

    def ancestral_law(self, variance):
        """Mean and variance [C] of samples; `variance` [T, C] of the reverse steps."""
        line, process = self.optimal("x_0"), self.process
        c1, c2 = process.c1[:, None], process.c2[:, None]
        variance = np.array(variance, np.float64)
        variance[0] = 0  # the last step returns its mean
        start = np.zeros_like(self.mean), np.ones_like(self.mean)
        down = slice(None, None, -1)
        slopes, intercepts = c1 * line.slope + c2, c1 * line.intercept
        return self._run(slopes[down], intercepts[down], variance[down], *start)

    def ddim_law(self, eta, *, start=None):
        """Mean and variance [C] of DDIM samples."""
        x_0, noise, process = self.optimal("x_0"), self.optimal("noise"), self.process
        signal_next = process.alpha_bar_before[:, None]
        spread_next = process.noise_var_before[:, None]
        share = spread_next / self.spread**2 * (1 - self.signal**2 / signal_next)
        sigma_2 = eta**2 * share
        direction = np.sqrt(np.maximum(spread_next - sigma_2, 0))
        slopes = np.sqrt(signal_next) * x_0.slope + direction * noise.slope
        intercepts = np.sqrt(signal_next) * x_0.intercept + direction * noise.intercept
        sigma_2 = sigma_2 + np.zeros_like(slopes)
        if start is None:
            start = np.zeros_like(self.mean), np.ones_like(self.mean)
        down = slice(None, None, -1)
        return self._run(slopes[down], intercepts[down], sigma_2[down], *start)

    # ---- the bound -------------------------------------------------------------------

    def expected_kl(self, x_0, log_var):
        """E over x_t of KL(posterior ‖ optimal mean, `log_var` [T, C]), nats [B, T, C].

        Only t ≥ 1 is meaningful. x_0 [B, C] is given: the model's error there is
        a + (b √ᾱ − 1) x_0 + b √n ε.
        """
        line, process = self.optimal("x_0"), self.process
        bias = line.intercept + (line.slope * self.signal - 1) * x_0[:, None, :]
        square = bias**2 + (line.slope * self.spread) ** 2
        square = process.c1[:, None] ** 2 * square * np.exp(-log_var)
        ratio = np.log(np.maximum(process.posterior_var, 1e-300))[:, None] - log_var
        return (np.expm1(ratio) - ratio + square) / 2

    def expected_decoder(self, x_0, log_var, levels, nodes=80):
        """E over x_{t=0} of −log p(x_0 | x_t) by Gauss–Hermite quadrature, nats."""
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        line = self.optimal("x_0")
        x_t = (
            self.signal[0] * x_0[..., None]
            + (self.spread[0] * np.ones_like(x_0))[..., None] * points
        )
        mean = line.intercept[0][:, None] + line.slope[0][:, None] * x_t
        log_prob = likelihood.discretised_log_prob(
            x_0[..., None], mean, (log_var[0] / 2)[:, None], levels
        )
        return -(log_prob @ weights) / weights.sum()

    def expected_vb(self, x_0, log_var, levels):
        """Expected terms of the bound in bits per dimension, [B, T]."""
        terms = self.expected_kl(x_0, log_var)
        terms[:, 0] = self.expected_decoder(x_0, log_var, levels)
        return terms.mean(axis=2) / likelihood.LN_2

    def information(self, t):
        """I(x_0; x_t) in nats, averaged over coordinates."""
        return float(np.mean(np.log(self.var[t] / self.spread[t] ** 2)) / 2)
