"""The diffusion process and its samplers against float64 oracles, hand-worked numbers and diffusers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusion_parts import process, seeded, some_images
from torch import Tensor, nn

from vrbench.objectives.diffusion_process import PREDICTIONS, DiffusionProcess, Sampler


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_closed_form_is_the_chain_step_by_step(schedule: str) -> None:
    chain = process(schedule=schedule)
    x0, noise = some_images(1)
    mean, variance = x0.clone(), 0.0
    for step, beta in enumerate(chain.betas):
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        t = torch.tensor([step])
        closed_mean = chain.add_noise(x0, torch.zeros_like(noise), t)
        closed_deviation = chain.add_noise(torch.zeros_like(x0), torch.ones_like(noise), t)
        torch.testing.assert_close(closed_mean, mean, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(closed_deviation**2, torch.full_like(x0, float(variance)), rtol=1e-12, atol=1e-14)


def test_schedules_are_those_of_the_papers_and_of_diffusers() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    linear, cosine = process().betas, process(schedule="cosine").betas
    assert (float(linear[0]), float(linear[-1])) == (1e-4, 0.02)
    torch.testing.assert_close(linear.float(), DDPMScheduler(num_train_timesteps=400).betas)
    theirs = DDPMScheduler(num_train_timesteps=400, beta_schedule="squaredcos_cap_v2").betas
    torch.testing.assert_close(cosine.float(), theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_recovers_the_image(prediction: str) -> None:
    chain = process(prediction=prediction)
    x0, noise = some_images(400)
    t = torch.arange(400)
    x_t = chain.add_noise(x0, noise, t)
    torch.testing.assert_close(chain.recover(chain.target(x0, noise, t), x_t, t), x0, rtol=0, atol=1e-12)


class Oracle(nn.Module):
    """Predicts perfectly, knowing the clean images."""

    def __init__(self, chain: DiffusionProcess, x0: Tensor) -> None:
        super().__init__()
        self.chain, self.x0 = chain, x0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal = self.chain.alphabar[t].sqrt().reshape(-1, 1, 1, 1)
        noise = (x.double() - signal * self.x0) / (1 - signal**2).sqrt()
        return self.chain.target(self.x0, noise, t).float()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("method", "steps"), [("ddim", 10), ("ddpm", 400)])
def test_sampling_with_a_perfect_predictor_gives_its_images(prediction: str, method: str, steps: int) -> None:
    chain = process(prediction=prediction)
    x0, _ = some_images(3)
    drawn = Sampler(method, steps).sample(Oracle(chain, x0), chain, tuple(x0.shape), seeded(0))
    torch.testing.assert_close(drawn.double(), x0, rtol=0, atol=1e-4)


def test_posterior_is_diffusers_and_bayes() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    chain = process()
    x0, noise = some_images(1)
    scheduler = DDPMScheduler(num_train_timesteps=400, prediction_type="sample", clip_sample=False)
    # its tables in float64: in float32, 1 - alphabar is off by 6e-4 of itself at t = 0
    scheduler.betas = torch.linspace(1e-4, 0.02, 400, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = torch.ones((), dtype=torch.float64)
    for step in (0, 1, 7, 200, 399):
        t = torch.tensor([step])
        x_t = chain.add_noise(x0, noise, t)
        mean, variance = chain.posterior(x0, x_t, t)

        drawn = scheduler.step(x0, step, x_t, generator=seeded(3)).prev_sample
        kick = torch.randn(x0.shape, generator=seeded(3), dtype=torch.float64)
        torch.testing.assert_close(mean + variance.sqrt() * kick, drawn, rtol=0, atol=1e-6)
        if step > 0:
            more = scheduler.step(x0, step, x_t, generator=seeded(4)).prev_sample
            other = torch.randn(x0.shape, generator=seeded(4), dtype=torch.float64)
            their_variance = ((drawn - more).norm() / (kick - other).norm()) ** 2
            torch.testing.assert_close(variance.flatten()[0], their_variance, rtol=1e-6, atol=0)

            beta, before = chain.betas[step], chain.alphabar[step - 1]
            precision = (1 - beta) / beta + 1 / (1 - before)
            bayes = (x_t * (1 - beta).sqrt() / beta + x0 * before.sqrt() / (1 - before)) / precision
            torch.testing.assert_close(mean, bayes, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(variance.flatten()[0], 1 / precision, rtol=1e-10, atol=1e-14)


def test_min_snr_weights_mean_the_same_for_every_prediction() -> None:
    """An error of the image costs min(snr, gamma) times its square, however the model puts it (2303.09556, eq. 8)."""
    x0, noise = some_images(400)
    t = torch.arange(400)
    wrong_x0 = x0 + 0.1
    costs = []
    for prediction in PREDICTIONS:
        chain = process(prediction=prediction, min_snr_gamma=5.0)
        x_t = chain.add_noise(x0, noise, t)
        signal = chain.alphabar[:, None, None, None].sqrt()
        wrong_noise = (x_t - signal * wrong_x0) / (1 - signal**2).sqrt()
        error = chain.target(wrong_x0, wrong_noise, t) - chain.target(x0, noise, t)
        costs.append(chain.weight(t) * error.square().flatten(1).mean(1))
    snr = chain.alphabar / (1 - chain.alphabar)
    for cost in costs:
        torch.testing.assert_close(cost, 0.01 * snr.clamp(max=5.0), rtol=1e-8, atol=1e-12)
    assert bool((process().weight(t) == 1).all())


def test_the_bound_holds_proper_probabilities_and_a_hand_worked_divergence() -> None:
    chain = process()
    levels = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).reshape(256, 1, 1, 1)
    first = torch.zeros(256, dtype=torch.int64)
    for guess in (-1.0, 0.3, 1.0):
        bits = chain.bound_terms(levels, levels, torch.full_like(levels, guess), first)
        near = bits < 30  # further away the likelihood is held at 1e-12
        assert float((2 ** -bits[near]).sum()) == pytest.approx(1, abs=1e-6)

    x0, noise = some_images(1)
    t = torch.tensor([10])
    x_t = chain.add_noise(x0, noise, t)
    assert float(chain.bound_terms(x0, x_t, x0, t)) == 0
    before, now = chain.alphabar[9], chain.alphabar[10]
    expected = 0.5 * 0.1**2 * (before / (1 - before) - now / (1 - now)) / np.log(2)  # (SNR(s) - SNR(t)) / 2: 2107.00630
    torch.testing.assert_close(chain.bound_terms(x0, x_t, x0 + 0.1, t), expected[None], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: process(timesteps=0), "timesteps=0: "),
        (lambda: process(prediction="score"), "prediction=score: unknown; take one of noise, v, x0"),
        (lambda: process(schedule="sigmoid"), "schedule=sigmoid: unknown; take one of linear, cosine"),
        (lambda: process(beta_end=1.5), "beta_end=1.5"),
        (lambda: process(beta_start=0.1), "beta_start=0.1"),
        (lambda: process(min_snr_gamma=0.0), "min_snr_gamma=0.0"),
        (lambda: Sampler("euler", 5), "method=euler: unknown"),
        (lambda: Sampler("ddim", 0), "steps=0: "),
    ],
)
def test_refuses_what_cannot_work(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
