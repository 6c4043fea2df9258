"""Networks: they know (x, t, labels) and nothing of diffusion."""
