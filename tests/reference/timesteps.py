"""The loss-second-moment sampler of improved DDPM, one observation at a time."""

import math


class SecondMoment:
    """Keeps the last `keep` losses of every timestep in lists."""

    def __init__(self, num_steps, *, keep=10, uniform=0.001):
        self.losses = [[] for _ in range(num_steps)]
        self.keep, self.uniform = keep, uniform

    def update(self, t, loss):
        for step, value in zip(t, loss, strict=True):
            self.losses[step] = [*self.losses[step], float(value)][-self.keep :]

    def probabilities(self):
        count = len(self.losses)
        if any(len(seen) < self.keep for seen in self.losses):
            return [1 / count] * count
        roots = [
            math.sqrt(math.fsum(v * v for v in seen) / self.keep)
            for seen in self.losses
        ]
        total = math.fsum(roots)
        return [
            (1 - self.uniform) * root / total + self.uniform / count for root in roots
        ]
