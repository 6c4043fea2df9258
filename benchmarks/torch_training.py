"""What a good PyTorch code would run: one train step, and one chain of DDIM steps."""

import contextlib
import os
import time

import jax
import numpy as np
import torch
import torch_unet

from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.diffusion import process

LN_2 = float(np.log(2.0))
TABLES = (
    "sqrt_alpha_bar",
    "sqrt_one_minus_alpha_bar",
    "posterior_mean_x_0",
    "posterior_mean_x_t",
    "posterior_log_var",
    "log_beta",
    "timesteps_seen",
)


class Racer:
    """The network of a setting in PyTorch, on its best device.

    Args:
        setting: from `presets.setting`.
        mode: of torch.compile; None to run eagerly.
        half: whether to run in float16 and NCHW; else in the setting's type and
            channels_last.
    """

    def __init__(self, setting, *, mode=None, half=False):
        self.mode, self.half = mode, half
        self.layout = torch.contiguous_format if half else torch.channels_last
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.backends.cudnn.benchmark = True
        # JAX multiplies float32 matrices in TF32 on these devices: so may PyTorch.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        config, facts = setting.config, setting.facts
        params = jax.tree.map(np.asarray, setting.params)
        height, width, channels = facts.shape
        self.config, self.channels, self.levels = config, channels, facts.levels
        self.module = torch_unet.UNet(
            config.model,
            image_size=(height, width),
            in_channels=channels,
            out_channels=params["conv_out"]["kernel"].shape[-1],
            num_classes=build_network.label_rows(config, facts),
        )
        torch_unet.load(self.module, params)
        self.before = self.allocated()
        self.module.to(self.device, memory_format=self.layout)
        self.null_label = build_network.null_label(config, facts)

    def tables(self, schedule):
        """Return a process as a dictionary of tensors on the device."""
        tables = process.tables(schedule)
        return {name: self.tensor(getattr(tables, name)) for name in TABLES}

    def tensor(self, values):
        """Return an array on the device; images become [B, C, H, W] in our layout."""
        tensor = torch.tensor(np.asarray(values), device=self.device)
        if tensor.ndim < 4:
            return tensor
        return tensor.permute(0, 3, 1, 2).contiguous(memory_format=self.layout)

    def precision(self):
        """Return the context of autocast where not all is computed in float32."""
        if self.half:
            return torch.autocast(self.device.type, torch.float16)
        if self.config.model.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def compiled(self, function):
        """Return the function, compiled if this racer is."""
        return torch.compile(function, mode=self.mode) if self.mode else function

    def wait(self):
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def allocated(self):
        """Return the bytes that are taken on a GPU, and count the peak from here on."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def memory(self):
        """Return our peak bytes on a GPU, None on a CPU, where nobody counts them."""
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated() - self.before


class Trainer(Racer):
    """Loss, gradient, fused Adam and an EMA over all tensors at once."""

    def __init__(self, setting, batch, **options):
        super().__init__(setting, **options)
        train = self.config.train
        self.batch = {name: self.tensor(array) for name, array in batch.items()}
        self.process = self.tables(build_process.schedule(self.config))
        self.weights = list(self.module.parameters())
        self.average = [weight.detach().clone() for weight in self.weights]
        self.optimizer = torch.optim.Adam(
            self.weights, lr=train.learning_rate, fused=True
        )
        self.loss = self.compiled(self.example_losses)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half)

    def run(self, steps):
        """Take steps, wait for them and return their number."""
        for _ in range(steps):
            self.step()
        self.wait()
        return steps

    def warm_up(self):
        """Take the first steps and return the seconds of the very first."""
        began = time.perf_counter()
        self.run(1)
        seconds = time.perf_counter() - began
        self.run(2)
        return seconds

    def step(self):
        """Take one step."""
        x_0, labels = self.batch["image"], self.batch.get("label")
        size, train = len(x_0), self.config.train
        num_steps = self.config.diffusion.num_steps
        t = torch.randint(num_steps, (size,), device=self.device)
        noise = torch.randn_like(x_0)
        if labels is not None and train.label_dropout:
            dropped = torch.rand(size, device=self.device) < train.label_dropout
            labels = torch.where(dropped, self.null_label, labels)
        self.scaler.scale(self.loss(x_0, t, noise, labels).mean()).backward()
        if train.clip_norm:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.weights, train.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            weight = 1 - train.ema_decay[0]
            torch._foreach_lerp_(self.average, self.weights, weight)

    def example_losses(self, x_0, t, noise, labels):
        """Return the loss of each example, [B]."""
        at = {
            name: table[t].reshape(-1, 1, 1, 1) for name, table in self.process.items()
        }
        x_t = at["sqrt_alpha_bar"] * x_0 + at["sqrt_one_minus_alpha_bar"] * noise
        with self.precision():
            output = self.module(x_t, self.process["timesteps_seen"][t], labels)
        predicted = output[:, : self.channels]
        mse = ((noise - predicted) ** 2).flatten(1).mean(1)
        if self.config.diffusion.loss == "simple":
            return mse
        bound = self.bound(at, x_0, x_t, t, predicted.detach(), output)
        return mse + bound * (self.config.diffusion.num_steps / 1000)

    def bound(self, at, x_0, x_t, t, noise, output):
        """Return the bound's term at t in bits per dimension, Improved DDPM eq. 15."""
        share = (output[:, self.channels :] + 1) / 2
        log_var = share * at["log_beta"] + (1 - share) * at["posterior_log_var"]
        predicted = x_t - at["sqrt_one_minus_alpha_bar"] * noise
        predicted = predicted / at["sqrt_alpha_bar"]

        def mean_of(x):
            return at["posterior_mean_x_0"] * x + at["posterior_mean_x_t"] * x_t

        mean, true_mean = mean_of(predicted), mean_of(x_0)
        gap = at["posterior_log_var"] - log_var
        squares = (true_mean - mean) ** 2 * torch.exp(-log_var)
        rate = 0.5 * (torch.expm1(gap) - gap + squares)
        decoder = -self.log_prob(x_0, mean, 0.5 * log_var)
        nats = torch.where((t == 0)[:, None, None, None], decoder, rate)
        return nats.flatten(1).mean(1) / LN_2

    def log_prob(self, x, mean, log_scale):
        """Return the log-probability of the grey level of x, DDPM eq. 13."""
        half_bin = 1 / (self.levels - 1)
        scale = torch.exp(-log_scale)

        def below(edge):
            z = scale * edge
            u = (2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)
            return 0.5 * (1 + torch.tanh(u))

        low, high = below(x - mean - half_bin), below(x - mean + half_bin)
        inner = torch.where(x > 1 - half_bin, 1 - low, high - low)
        return torch.log(torch.where(x < half_bin - 1, high, inner).clamp(min=1e-12))


class Sampler(Racer):
    """A chain of DDIM steps with η = 0 and x̂_0 clipped, step by step."""

    def __init__(self, setting, schedule, x_T, labels, **options):
        super().__init__(setting, **options)
        self.process, self.num_steps = self.tables(schedule), schedule.num_steps
        self.x_T = self.tensor(x_T)
        self.labels = None if labels is None else self.tensor(labels)
        self.module.eval()
        self.network = self.compiled(self.module)

    def run(self):
        """Make a batch, wait for it and return the number of batches."""
        self.sample()
        self.wait()
        return 1

    @torch.inference_mode()
    def sample(self):
        """Return images [B, C, H, W]."""
        x, size = self.x_T, len(self.x_T)
        sqrt_alpha_bar = self.process["sqrt_alpha_bar"]
        sqrt_rest = self.process["sqrt_one_minus_alpha_bar"]
        seen = self.process["timesteps_seen"]
        for t in range(self.num_steps - 1, -1, -1):
            with self.precision():
                output = self.network(x, seen[t].expand(size), self.labels)
            noise = output[:, : self.channels]
            x_0 = ((x - sqrt_rest[t] * noise) / sqrt_alpha_bar[t]).clamp(-1, 1)
            noise = (x - sqrt_alpha_bar[t] * x_0) / sqrt_rest[t]
            if t == 0:
                return x_0
            x = sqrt_alpha_bar[t - 1] * x_0 + sqrt_rest[t - 1] * noise
