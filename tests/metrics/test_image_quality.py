"""Image quality: the Fréchet distance by its formula, nearest images by hand, the kept networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_parts import digits_data, kept_digits, seeded, task
from scipy.linalg import sqrtm
from torch import Tensor, nn

import vrbench.metrics.image_quality as image_quality
from vrbench.data.images import ImageData
from vrbench.metrics.image_quality import ImageQuality, frechet_distance, moments, nearest_distances, to_unit


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
    with pytest.raises(ModuleNotFoundError, match="fid=64: needs torchmetrics"):
        ImageQuality(64, ["val"], kept_digits(), fid=64)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ImageQuality(1, ["val"], None, None), "samples=1: "),
        (lambda: ImageQuality(8, ["train"], None, None), "unknown split train"),
        (lambda: ImageQuality(8, ["val"], "letters", None), "features=letters: unknown; take one of digits-"),
    ],
)
def test_refuses_what_cannot_work(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
