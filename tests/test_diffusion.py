"""Diffusion: the process against float64 oracles and diffusers, the task's determinism, and its quality metrics."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Generator, Tensor, nn
from toy import settings

import tasks.image_quality as image_quality
from optimizers.vradam import VRAdam
from tasks.diffusion import Diffusion
from tasks.diffusion_process import PREDICTIONS, DiffusionProcess, Sampler
from tasks.image_quality import ImageQuality, frechet_distance, moments, nearest_distances, to_unit
from vrbench.contracts import RunInfo
from vrbench.data.images import ImageData, digits
from vrbench.models.unet_tiny import TinyUNet
from vrbench.randomness import Streams
from vrbench.trainer import Stopped, Trainer
from vrbench.writer import RunWriter

ROOT = Path(__file__).parents[1]
MNIST = ROOT / "../shared/data/mnist"
Call = Callable[..., int]


def process(**changes: Any) -> DiffusionProcess:
    usual: dict[str, Any] = {"timesteps": 400, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    return DiffusionProcess(**{**usual, "prediction": "noise", "min_snr_gamma": None, **changes})


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def some_images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clean images in [-1, 1] and noise, float64 (count, 2, 3, 3)."""
    shape, generator = (count, 2, 3, 3), seeded(seed)
    x0 = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, torch.randn(shape, generator=generator, dtype=torch.float64)


def digits_data() -> ImageData:
    return digits(0.2, 0.2, 0, None)


def task(**changes: Any) -> Diffusion:
    usual: dict[str, Any] = {
        "name": "diffusion_digits",
        "data": digits_data(),
        "process": process(timesteps=40, schedule="cosine", prediction="v"),
        "sampler": Sampler("ddim", 4),
        "quality": None,
        "batch_size": 32,
        "flip": False,
        "eval_examples": 64,
        "buckets": 4,
        "render_samples": 5,
    }
    return Diffusion(**{**usual, **changes})


def tiny(channels: int = 1, size: int = 8) -> TinyUNet:
    torch.manual_seed(0)
    shape = (channels, size, size)
    return TinyUNet(shape, channels, channels=[8, 16], groups=4, time_features=16, attention=True)


# ---- the process ----------------------------------------------------------------------------------------------------


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


# ---- the task -------------------------------------------------------------------------------------------------------


def test_all_noise_of_the_loss_comes_from_the_generator() -> None:
    problem, model = task(), tiny()
    ((_, batch),) = problem.probe_batches(16, 16)
    before = torch.get_rng_state()
    first, _ = problem.loss(model, batch, seeded(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, _ = problem.loss(model, batch, seeded(5))
    other, _ = problem.loss(model, batch, seeded(6))
    assert first == again
    assert first != other


def test_loss_by_hand_and_its_weighting() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.zeros_like(x)

    problem = task(process=process(prediction="noise"))
    ((_, batch),) = problem.probe_batches(8, 8)
    loss, metrics = problem.loss(Zero(), batch, seeded(1))
    generator = seeded(1)
    t = torch.randint(400, (8,), generator=generator)
    noise = torch.randn(8, 1, 8, 8, generator=generator)
    torch.testing.assert_close(loss, noise.square().mean())
    assert metrics == {}

    weighted = task(process=process(prediction="noise", min_snr_gamma=5.0))
    loss, metrics = weighted.loss(Zero(), batch, seeded(1))
    expected = noise.square().flatten(1).mean(1) * weighted.process.weight(t).float()
    torch.testing.assert_close(loss, expected.mean())
    torch.testing.assert_close(metrics["mse"], noise.square().mean())


def test_evaluation_is_the_same_to_the_last_digit() -> None:
    model = tiny().eval()
    first = task().evaluate(model, "val")
    torch.manual_seed(123)
    assert task(batch_size=48, flip=True).evaluate(model, "val") == pytest.approx(first, rel=1e-5)
    assert task().evaluate(model, "val") == first
    assert task().evaluate(model, "test")["loss"] != first["loss"]
    buckets = [first[f"loss_t{number}"] for number in range(4)]
    assert np.mean(buckets) == pytest.approx(first["loss"], rel=1e-6)  # timesteps are spread evenly
    assert len(set(buckets)) == 4


def test_train_batches_skip_without_changing_the_rest() -> None:
    problem = task(flip=True)

    def epoch(start: int) -> list[Tensor]:
        augment, drawn = seeded(0), []
        batches = iter(problem.train_batches(seeded(7), augment, start))
        for number in range(start, problem.batches_per_epoch):
            augment.manual_seed(number)
            drawn.append(next(batches)[0])
        assert next(batches, None) is None
        return drawn

    whole, rest = epoch(0), epoch(5)
    assert all(torch.equal(one, two) for one, two in zip(whole[5:], rest, strict=True))
    images = torch.cat(whole)
    assert images.shape == (problem.batches_per_epoch * 32, 1, 8, 8)
    assert (float(images.min()), float(images.max())) == (-1, 1)
    plain = torch.cat([batch for (batch,) in task().train_batches(seeded(7), seeded(0))])
    kept = (images == plain).flatten(1).all(1)
    assert bool((kept | (images == plain.flip(3)).flatten(1).all(1)).all())
    assert 0.4 < float(kept.float().mean()) < 0.6


def test_probe_batches_weigh_their_share() -> None:
    chunks = task().probe_batches(10, 4)
    assert [(weight, len(images)) for weight, (images,) in chunks] == [(0.4, 4), (0.4, 4), (0.2, 2)]
    assert torch.equal(chunks[0][1][0], to_unit(digits_data().images["train"][:4]))
    assert sum(len(images) for _, (images,) in task().probe_batches(10**6, 500)) == len(digits_data().images["train"])


@pytest.mark.parametrize("method", Sampler.METHODS)
def test_samples_are_fixed_and_the_picture_shows_them(method: str) -> None:
    problem, model = task(sampler=Sampler(method, 4)), tiny().eval()
    first = problem.samples(model, 70)
    torch.manual_seed(5)
    assert torch.equal(problem.samples(model, 70), first)
    assert torch.equal(problem.samples(model, 64), first[:64])
    assert float(first.abs().max()) <= 1
    picture = problem.render(model)
    assert (picture.dtype, tuple(picture.shape)) == (torch.uint8, (2 * 34, 3 * 34, 3))  # 5 samples of 32 + 2 pixels
    assert bool((picture[34:, 68:] == 255).all())


def test_colour_images_go_all_the_way() -> None:
    pixels = {
        split: torch.randint(256, (20, 40, 40, 3), generator=seeded(0)).byte() for split in ("train", "val", "test")
    }
    labels = {split: torch.zeros(20, dtype=torch.int64) for split in pixels}
    problem = task(data=ImageData(pixels, labels, 2), batch_size=8, render_samples=1)
    model = tiny(3, 40).eval()
    assert (problem.input_shape, problem.output_dim, problem.batches_per_epoch) == ((3, 40, 40), 3, 2)
    assert problem.evaluate(model, "val")["loss"] > 0
    picture = problem.render(model)
    expected = ((problem.samples(model, 1)[0].permute(1, 2, 0) + 1) * 127.5).round().byte()
    assert torch.equal(picture[1:-1, 1:-1], expected)


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
        (lambda: task(sampler=Sampler("ddim", 41)), "sampler.steps=41: "),
        (lambda: task(batch_size=0), "batch_size=0: "),
        (lambda: task(batch_size=5000), "batch_size=5000: "),
        (lambda: task(buckets=41), "buckets=41: "),
        (lambda: task(eval_examples=3), "eval_examples=3: "),
        (lambda: task(render_samples=0), "render_samples=0: "),
        (lambda: ImageQuality(1, ["val"], None, None), "samples=1: "),
        (lambda: ImageQuality(8, ["train"], None, None), "unknown split train"),
        (lambda: ImageQuality(8, ["val"], "letters", None), "features=letters: unknown; take one of digits-"),
    ],
)
def test_refuses_what_cannot_work(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_it_learns() -> None:
    problem, model = task(quality=ImageQuality(128, ["val"], kept_digits(), None), sampler=Sampler("ddim", 10)), tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    before = problem.evaluate(model, "val")
    for epoch in range(3):
        for number, batch in enumerate(problem.train_batches(seeded(epoch), seeded(0))):
            optimizer.zero_grad()
            loss, _ = problem.loss(model, batch, seeded(100 * epoch + number))
            loss.backward()
            optimizer.step()
    after = problem.evaluate(model, "val")
    assert after["loss"] < 0.7 * before["loss"]
    assert after["bits_per_dim"] < before["bits_per_dim"]
    assert after["frechet_distance"] < before["frechet_distance"]


def test_one_timestep_is_enough() -> None:
    problem = task(process=process(timesteps=1), sampler=Sampler("ddim", 1), buckets=1)
    assert np.isfinite(list(problem.evaluate(tiny().eval(), "val").values())).all()
    assert torch.isfinite(problem.samples(tiny().eval(), 2)).all()


# ---- quality --------------------------------------------------------------------------------------------------------


def test_frechet_distance_is_the_formula() -> None:
    generator = seeded(0)
    a = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    b = (
        torch.randn(40, 6, generator=generator, dtype=torch.float64) @ torch.randn(6, 6, generator=generator).double()
        + 1
    )
    (mean1, cov1), (mean2, cov2) = [(x.numpy().mean(0), np.cov(x.numpy(), rowvar=False)) for x in (a, b)]
    expected = ((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * sqrtm(cov1 @ cov2).real)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-9)
    line = moments(torch.tensor([[0.0], [2.0]])), moments(torch.tensor([[3.0], [3.0]]))  # N(1, 2) and N(3, 0)
    assert frechet_distance(*line) == pytest.approx(4 + 2)


def test_nearest_distances_by_hand() -> None:
    training = torch.tensor([0, 255, 102], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 2, 2, 1)  # -1, 1, -0.2
    images = torch.tensor([-1.0, 0.5, 0.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    torch.testing.assert_close(nearest_distances(images, training), torch.tensor([0.0, 0.5, 0.2]), atol=1e-6, rtol=0)


def kept_digits() -> str:
    (path,) = image_quality.KEPT.glob("digits-*.pt")
    return path.stem


def test_the_kept_classifier_is_what_its_name_says_and_knows_digits_from_noise(tmp_path: Path) -> None:
    path = image_quality.KEPT / f"{kept_digits()}.pt"
    data = digits_data()
    net = image_quality.load_feature_net(path, data)
    assert path.stem == f"digits-{image_quality.weights_hash(net.state_dict())[:8]}"
    _, logits = net(to_unit(data.images["test"]))
    assert float((logits.argmax(1) == data.labels["test"]).float().mean()) > 0.97
    _, noise_logits = net(torch.randn(300, 1, 8, 8, generator=seeded(0)).clamp(-1, 1))
    assert float(logits.softmax(1).amax(1).mean()) > 0.95
    assert float(noise_logits.softmax(1).amax(1).mean()) < 0.2

    stored = torch.load(path, weights_only=True)
    stored["weights"]["head.bias"][0] += 1e-3
    torch.save(stored, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="do not match its hash"):
        image_quality.load_feature_net(tmp_path / "bad.pt", data)
    (tmp_path / "torn.pt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="unreadable"):
        image_quality.load_feature_net(tmp_path / "torn.pt", data)
    wide = ImageData({key: part.repeat(1, 1, 2, 1) for key, part in data.images.items()}, data.labels, 10)
    with pytest.raises(ValueError, match=r"was made for .* \[1, 8, 8, 10\], not for \[1, 8, 16, 10\]"):
        task(data=wide, quality=ImageQuality(16, ["val"], kept_digits(), None))


def test_quality_tells_real_images_noise_and_copies_apart() -> None:
    data, quality = digits_data(), ImageQuality(256, ["val"], kept_digits(), None)
    quality.check(data)
    held_out = quality.measure(to_unit(data.images["test"]), data, "val")
    copies = quality.measure(to_unit(data.images["train"][:256]), data, "val")
    noise = quality.measure(torch.randn(256, 1, 8, 8, generator=seeded(0)).clamp(-1, 1), data, "val")
    assert held_out["frechet_distance"] < 0.05 * noise["frechet_distance"]
    assert held_out["confidence"] > 0.95 > 0.2 > noise["confidence"]
    assert held_out["nearest_distance"] == pytest.approx(held_out["nearest_distance_real"], rel=0.1)
    assert copies["nearest_distance"] < 1e-3


def test_a_classifier_is_trained_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRBENCH_CACHE", str(tmp_path / "cache"))
    trained: list[int] = []
    real_train = image_quality.train_feature_net

    def quick(data: ImageData) -> image_quality.FeatureNet:
        trained.append(1)
        return real_train(data, steps=6, batch_size=16)

    monkeypatch.setattr(image_quality, "train_feature_net", quick)
    before = torch.get_rng_state()
    data = digits_data()
    nets = [image_quality.cached_feature_net(data) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(trained) == 1
    hashes = {image_quality.weights_hash(net.state_dict()) for net in (*nets, real_train(data, 6, 16))}
    assert len(hashes) == 1
    image_quality.cached_feature_net(
        dataclasses.replace(data, images={**data.images, "train": 255 - data.images["train"]})
    )
    assert len(trained) == 2
    assert all(path.suffix == ".pt" for path in (tmp_path / "cache").iterdir())


def test_fid_is_torchmetrics_and_refused_where_its_network_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Brightness(nn.Module):
        num_features = 2

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.float().mean((1, 2, 3)), images.float()[:, 0, 0, 0]], dim=1)

    data = digits_data()
    metric = FrechetInceptionDistance(feature=Brightness(), normalize=False)
    monkeypatch.setattr(image_quality, "inception_fid", lambda layer: metric)
    quality = ImageQuality(64, ["val"], kept_digits(), fid=64)
    quality.check(data)
    images = to_unit(data.images["test"][:64])
    real = to_unit(data.images["val"][:64])
    features = [Brightness()((x + 1) / 2) for x in (images, real)]
    expected = frechet_distance(moments(features[0]), moments(features[1]))
    for _ in range(2):  # nothing is left over from the measurement before
        assert quality.measure(images, data, "val")["fid"] == pytest.approx(expected, rel=1e-3, abs=1e-6)

    monkeypatch.undo()
    monkeypatch.setattr(image_quality, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="fid=64: needs torchmetrics, which is not installed"):
        ImageQuality(64, ["val"], kept_digits(), fid=64)


# ---- whole runs -----------------------------------------------------------------------------------------------------

SHORT = (
    "task=diffusion_digits",
    "logger=none",
    "model.channels=[8,16]",
    "trainer.max_steps=12",
    "trainer.eval_every=6",
    "trainer.log_every=4",
    "task.eval_examples=64",
    "task.sampler.steps=2",
    "task.quality.samples=16",
    "task.render_samples=4",
)


def only_run(folder: Path) -> Path:
    (path,) = folder.glob("*/*/summary.json")
    return path.parent


def test_a_run_leaves_metrics_and_a_picture(vrbench: Call, tmp_path: Path) -> None:
    from PIL import Image

    assert vrbench(*SHORT, "trainer.render_every=6") == 0
    folder = only_run(tmp_path)
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    quality = {"frechet_distance", "confidence", "nearest_distance", "nearest_distance_real"}
    keys = {"loss", "loss_t0", "loss_t1", "loss_t2", "loss_t3", "bits_per_dim"} | quality
    assert metrics.keys() == {f"{split}/{key}" for split in ("val", "test") for key in keys}
    assert sorted(path.name for path in folder.glob("*.png")) == ["samples-0000006.png", "samples.png"]
    assert Image.open(folder / "samples.png").size == (68, 68)


def live_trainer() -> Trainer:
    """Ten steps of a small problem with VRAdam and averaged weights, from the same beginning at every call."""
    streams = Streams(3)
    problem = task(quality=ImageQuality(16, ["test"], kept_digits(), None), process=process(min_snr_gamma=5.0))
    model = tiny()
    chosen = settings(epochs=None, max_steps=10, ema_decay=0.8, log_every=2, eval_every=5)
    optimizer = VRAdam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return Trainer(chosen, problem, model, optimizer, schedule, {}, streams)


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    def fit(name: str, stop_after: int) -> tuple[dict[str, Any], Trainer]:
        trainer = live_trainer()
        info = RunInfo("0", "0", name, "s", tmp_path / name, {}, {}, 3)
        with RunWriter.open(info, {}, anew=False, machine={"device": "cpu", "threads": 1}) as writer:
            return trainer.fit(writer, lambda: trainer.step >= stop_after), trainer

    whole, unbroken = fit("whole", 99)
    with pytest.raises(Stopped):
        fit("broken", 7)
    torch.manual_seed(12345)
    resumed, second = fit("broken", 99)
    assert whole["metrics"] == resumed["metrics"]
    assert {"test/frechet_distance", "test/loss_t3", "val/bits_per_dim"} <= whole["metrics"].keys()
    for ours, theirs in ((unbroken.model, second.model), (unbroken.measured_model, second.measured_model)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not torch.equal(next(unbroken.model.parameters()), next(unbroken.measured_model.parameters()))
    pictures = [(tmp_path / name / "samples.png").read_bytes() for name in ("whole", "broken")]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("task.process.timesteps=0", "task.process.timesteps=0: "),
        ("task.process.prediction=score", "task.process.prediction=score: unknown"),
        ("task.quality.features=letters", "task.quality.features=letters: unknown"),
        ("model=mlp", "model: does not fit task=diffusion_digits: "),
        ("task=diffusion_digits model=unet2d model.channels=[8,8,8,8,8]", "8x8 is not divisible by 16"),
    ],
)
def test_bad_input_is_one_line_before_training(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str], override: str, says: str
) -> None:
    assert vrbench("task=diffusion_digits", *override.split()) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_real_mnist_trains(vrbench: Call, tmp_path: Path) -> None:
    if not MNIST.is_dir():
        pytest.skip("the real MNIST lies in ../shared/data, which is not here")
    data = (f"task.data.path={MNIST.resolve()}", "task.data.train_size=64", "task.data.test_size=16")
    quick = ("task.batch_size=16", "task.quality=null", "trainer.max_steps=4", "trainer.eval_every=4")
    assert (
        vrbench(*SHORT[1:3], "task=diffusion_mnist", *data, *quick, "task.eval_examples=32", "task.sampler.steps=2")
        == 0
    )
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["metrics"]["test/loss"] > 0
