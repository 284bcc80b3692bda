"""The diffusion task: its loss by hand, its determinism, what it refuses, and whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusion_parts import digits_data, kept_digits, process, seeded, task, tiny
from torch import Tensor, nn
from toy import settings
from vrbench.optimizers.vradam import VRAdam

from vrbench.contracts import RunInfo
from vrbench.data.images import ImageData
from vrbench.metrics.image_quality import ImageQuality, to_unit
from vrbench.objectives.diffusion_process import Sampler
from vrbench.randomness import Streams
from vrbench.runs.writer import RunWriter
from vrbench.training.trainer import Stopped, Trainer

ROOT = Path(__file__).parents[2]
MNIST = ROOT / "../shared/data/mnist"
Call = Callable[..., int]


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
        (lambda: task(sampler=Sampler("ddim", 41)), "sampler.steps=41: "),
        (lambda: task(batch_size=0), "batch_size=0: "),
        (lambda: task(batch_size=5000), "batch_size=5000: "),
        (lambda: task(buckets=41), "buckets=41: "),
        (lambda: task(eval_examples=3), "eval_examples=3: "),
        (lambda: task(render_samples=0), "render_samples=0: "),
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
