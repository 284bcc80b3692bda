"""The Gaussian diffusion of DDPM: what the forward process adds, what a model predicts of it, and the way back.

Images x0 lie in [-1, 1]; timesteps t are counted from 0 to T-1, t = 0 being the least noise. Notation of Ho et al. 2020
(arXiv 2006.11239): alpha_t = 1 - beta_t, and alphabar_t is their running product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Generator, Tensor, nn

PREDICTIONS = {"noise": "epsilon", "v": "v_prediction", "x0": "sample"}
"""What a model may predict, and diffusers' word for it."""


def linear_betas(timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """Betas in equal steps, float64 of shape (T,): Ho et al. 2020, section 4."""
    return torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)


def cosine_betas(timesteps: int) -> Tensor:
    """Betas whose alphabar is a squared cosine, float64 of shape (T,): Nichol & Dhariwal 2021 (2102.09672), eq. 17."""
    time = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    alphabar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alphabar[1:] / alphabar[:-1]).clamp(max=0.999)


class DiffusionProcess:
    """Closed forms of the forward process q(x_t | x_0) and of its posterior q(x_{t-1} | x_t, x_0).

    Args:
        timesteps: T, the length of the chain.
        schedule: "linear" or "cosine".
        beta_start, beta_end: first and last beta of the linear schedule (the cosine one has none to choose).
        prediction: what the model's output stands for: "noise" (the noise epsilon), "x0" (the clean image) or "v"
            (sqrt(alphabar) epsilon - sqrt(1 - alphabar) x0: Salimans & Ho 2022, arXiv 2202.00512, appendix D).
        min_snr_gamma: gamma of the min-SNR loss weight (Hang et al. 2023, arXiv 2303.09556), or None for weight 1.

    Raises ValueError for a value outside these.
    """

    def __init__(
        self,
        timesteps: int,
        schedule: str,
        beta_start: float,
        beta_end: float,
        prediction: str,
        min_snr_gamma: float | None,
    ) -> None:
        if timesteps < 1:
            raise ValueError(f"timesteps={timesteps}: a diffusion needs at least 1 timestep; the paper takes 400")
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(f"beta_start={beta_start}, beta_end={beta_end}: must rise within (0, 1), as 1e-4 and 0.02")
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction={prediction}: unknown; take one of {', '.join(PREDICTIONS)}")
        if min_snr_gamma is not None and min_snr_gamma <= 0:
            raise ValueError(f"min_snr_gamma={min_snr_gamma}: must be above 0 (5 is usual), or null for no weighting")
        makers: dict[str, Callable[[], Tensor]] = {
            "linear": lambda: linear_betas(timesteps, beta_start, beta_end),
            "cosine": lambda: cosine_betas(timesteps),
        }
        if schedule not in makers:
            raise ValueError(f"schedule={schedule}: unknown; take one of {', '.join(makers)}")
        self.timesteps = timesteps
        self.prediction = prediction
        self.min_snr_gamma = min_snr_gamma
        self.betas = makers[schedule]()
        self.alphabar = torch.cumprod(1 - self.betas, dim=0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphabar[:-1]])
        self._tables = {
            "signal": self.alphabar.sqrt(),
            "noise": (1 - self.alphabar).sqrt(),
            "snr": self.alphabar / (1 - self.alphabar),
            "posterior_x0": before.sqrt() * self.betas / (1 - self.alphabar),
            "posterior_xt": (1 - self.betas).sqrt() * (1 - before) / (1 - self.alphabar),
            "posterior_variance": self.betas * (1 - before) / (1 - self.alphabar),
        }

    def to(self, device: torch.device) -> None:
        """Move the tables to where the batches are (MPS has no float64, so they become float32 there)."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._tables = {name: table.to(device, dtype) for name, table in self._tables.items()}

    def _at(self, table: str, t: Tensor, like: Tensor) -> Tensor:
        """Entries of a table for timesteps (B,), shaped to multiply a batch (B, ...)."""
        return self._tables[table][t].to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))

    def draw_timesteps(self, count: int, generator: Generator) -> Tensor:
        """Uniform timesteps, int64 (count,), on the generator's device."""
        return torch.randint(self.timesteps, (count,), generator=generator, device=generator.device)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(alphabar_t) x0 + sqrt(1 - alphabar_t) noise, the shape of x0 (B, ...). Ho et al., eq. 4."""
        return self._at("signal", t, x0) * x0 + self._at("noise", t, x0) * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model's output is compared with, the shape of x0."""
        if self.prediction == "noise":
            return noise
        if self.prediction == "x0":
            return x0
        return self._at("signal", t, x0) * noise - self._at("noise", t, x0) * x0

    def recover(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean image that a model's output (B, ...) implies, given the noisy one."""
        if self.prediction == "x0":
            return output
        signal, noise = self._at("signal", t, x_t), self._at("noise", t, x_t)
        if self.prediction == "noise":
            return (x_t - noise * output) / signal
        return signal * x_t - noise * output

    def weight(self, t: Tensor) -> Tensor:
        """Weight of each example's loss, float64 (B,): Hang et al. 2023, section 3.4, for each prediction."""
        snr = self._tables["snr"][t]
        if self.min_snr_gamma is None:
            return torch.ones_like(snr)
        capped = snr.clamp(max=self.min_snr_gamma)
        return capped / {"noise": snr, "v": snr + 1, "x0": torch.ones_like(snr)}[self.prediction]

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, ...) and variance (B, 1, ...) of q(x_{t-1} | x_t, x0): Ho et al., eqs. 6, 7; 0 at t = 0."""
        mean = self._at("posterior_x0", t, x0) * x0 + self._at("posterior_xt", t, x0) * x_t
        return mean, self._at("posterior_variance", t, x0)

    def bound_terms(self, x0: Tensor, x_t: Tensor, predicted_x0: Tensor, t: Tensor) -> Tensor:
        """Term t of the variational bound in bits per dimension, (B,): Ho et al., eq. 5.

        For t > 0 the divergence of two Gaussians with the posterior's variance; at t = 0 the likelihood of the 256
        grey levels under a Gaussian of variance beta_0 (their eq. 13). Their sum over t, with `prior_term`, bounds the
        negative log-likelihood whatever the model predicts and however its loss was weighted.
        """
        mean, variance = self.posterior(x0, x_t, t)
        guess, _ = self.posterior(predicted_x0, x_t, t)
        divergence = (mean - guess).square() / (2 * variance.clamp(min=1e-20))
        scale = math.sqrt(2 * float(self.betas[0]))
        above = torch.where(x0 > 0.999, torch.inf, x0 + 1 / 255 - predicted_x0) / scale
        below = torch.where(x0 < -0.999, -torch.inf, x0 - 1 / 255 - predicted_x0) / scale
        likelihood = (torch.erf(above) - torch.erf(below)) / 2
        first = t.reshape(-1, *[1] * (x0.dim() - 1)) == 0
        nats = torch.where(first, -likelihood.clamp(min=1e-12).log(), divergence)
        return nats.flatten(1).mean(1) / math.log(2)

    def prior_term(self, x0: Tensor) -> Tensor:
        """Divergence of q(x_T | x0) from a unit Gaussian in bits per dimension, (B,)."""
        alphabar = float(self.alphabar[-1])
        nats = 0.5 * (alphabar * x0.square() - alphabar - math.log1p(-alphabar))
        return nats.flatten(1).mean(1) / math.log(2)


class Sampler:
    """Images from a model by diffusers' DDPM or DDIM scheduler, on the betas of a process.

    Args:
        method: "ddim" (deterministic: Song et al. 2020, arXiv 2010.02502, eta = 0) or "ddpm" (ancestral).
        steps: model calls a sample takes, at most the process's timesteps.

    Raises ValueError for an unknown method or steps below 1, ModuleNotFoundError where diffusers is not installed.
    """

    METHODS = ("ddim", "ddpm")

    def __init__(self, method: str, steps: int) -> None:
        if method not in self.METHODS:
            raise ValueError(f"method={method}: unknown; take one of {', '.join(self.METHODS)}")
        if steps < 1:
            raise ValueError(f"steps={steps}: a sample takes at least 1 step")
        if find_spec("diffusers") is None:
            raise ModuleNotFoundError(f"method={method}: needs diffusers", name="diffusers")
        self.method = method
        self.steps = steps

    @torch.no_grad()
    def sample(
        self, model: nn.Module, process: DiffusionProcess, shape: tuple[int, ...], generator: Generator
    ) -> Tensor:
        """Draw images in [-1, 1], float32 of `shape` (B, C, H, W), on the generator's device.

        All noise comes from `generator`; predicted clean images are clipped to [-1, 1] at every step.
        """
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        scheduler = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[self.method](
            num_train_timesteps=process.timesteps,
            trained_betas=process.betas.tolist(),
            prediction_type=PREDICTIONS[process.prediction],
            timestep_spacing="trailing",
        )
        scheduler.set_timesteps(self.steps)
        images = torch.randn(shape, generator=generator, device=generator.device)
        for step in scheduler.timesteps.tolist():
            t = torch.full((shape[0],), step, dtype=torch.int64, device=images.device)
            output = model(images, t).float()
            images = scheduler.step(output, step, images, generator=generator).prev_sample
        return images.clamp(-1, 1)
