"""How good generated images are: Fréchet distance on a small classifier's features, its confidence, and memorisation.

The yardstick must not move between runs, so the classifier is a fixed file: for scikit-learn's digits one lies beside
this module, for other data it is trained once by a fixed recipe and kept in the cache folder. Every file carries the
SHA-256 of its weights and is refused when they do not match. Figures of two classifiers cannot be compared.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vrbench.data.images import ImageData
from vrbench.runs.records import write_whole

KEPT = Path(__file__).parent / "features"
"""Classifiers that come with vrbench: `<name>-<first 8 hex digits of its hash>.pt`."""
RECIPE = "1"
"""Number of the recipe below; a change of architecture or training needs a new one."""
CHUNK = 512
"""Images that are looked at together, to bound memory."""


class FeatureNet(nn.Module):
    """Three convolutions and a linear head: images in [-1, 1] (B, C, H, W) to features (B, 64) and logits (B, K)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.features = nn.Linear(128, 64)
        self.head = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.features(self.convolutions(images)))
        return features, self.head(features)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 images (B, H, W, C) as float32 (B, C, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def nonsense_like(images: Tensor) -> Tensor:
    """As many images without content, the shape of `images` (B, C, H, W): half Gaussian noise, half with every pixel
    taken from an image of its own, so that brightness is right at every place and nothing else is."""
    half = len(images) // 2
    noise = torch.randn_like(images[:half]).clamp(-1, 1)
    flat = images[half:].flatten(2)
    owners = torch.randint(len(flat), (len(flat), 1, flat.shape[2])).expand_as(flat)
    return torch.cat([noise, flat.gather(0, owners).view_as(images[half:])])


def train_feature_net(data: ImageData, steps: int = 800, batch_size: int = 128) -> FeatureNet:
    """The classifier of recipe 1, on the training split: AdamW, one-cycle rate up to 3e-3, seed 0. CPU, eval mode.

    A plain classifier is as sure of noise as of digits (0.84 on average for Gaussian noise, measured): its confidence
    would say nothing. So it also sees images without content, for which every class is equally right (outlier exposure,
    Hendrycks et al. 2019, arXiv 1812.04606).
    """
    images, labels = data.images["train"].cpu(), data.labels["train"].cpu()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        net = FeatureNet(data.shape[0], data.classes)
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        for _ in range(steps):
            chosen = torch.randint(len(images), (batch_size,))
            real = to_unit(images[chosen])
            _, logits = net(torch.cat([real, nonsense_like(real)]))
            right = F.cross_entropy(logits[:batch_size], labels[chosen])
            undecided = -logits[batch_size:].log_softmax(1).mean()
            optimizer.zero_grad()
            (right + 0.5 * undecided).backward()
            optimizer.step()
            schedule.step()
    return net.eval().requires_grad_(False)


def weights_hash(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and float32 values, hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_feature_net(net: FeatureNet, path: Path, data: ImageData) -> None:
    """Write the weights, their hash and what images they are for to `path`, whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = net.state_dict()
    stored = {"weights": state, "sha256": weights_hash(state), "made_for": [*data.shape, data.classes]}
    write_whole(path, lambda file: torch.save(stored, file))


def load_feature_net(path: Path, data: ImageData) -> FeatureNet:
    """Read a classifier. Raises ValueError where the file is not what its hash says, or is for other images."""
    wanted = [*data.shape, data.classes]
    try:
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state, expected, made_for = stored["weights"], stored["sha256"], stored["made_for"]
    except Exception as error:
        reason = type(error).__name__
        raise ValueError(f"features={path}: unreadable ({reason}); delete it to have it made anew") from error
    if weights_hash(state) != expected:
        raise ValueError(f"features={path}: its weights do not match its hash; delete it to have it made anew")
    if made_for != wanted:
        raise ValueError(
            f"features={path.stem}: was made for (channels, height, width, classes) {made_for}, not for {wanted}; "
            "null trains a classifier on these data"
        )
    with torch.device("meta"):  # an initialisation would draw from torch's own generator
        net = FeatureNet(data.shape[0], data.classes)
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def cache_folder() -> Path:
    """Where classifiers are kept: `$VRBENCH_CACHE`, else `vrbench` in the user's cache folder."""
    own = os.environ.get("VRBENCH_CACHE")
    if own is not None:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrbench"


def data_hash(data: ImageData) -> str:
    """SHA-256 of the recipe's number, the training pixels and their labels, hexadecimal."""
    digest = hashlib.sha256(f"{RECIPE}/{tuple(data.images['train'].shape)}/{data.classes}".encode())
    for tensor in (data.images["train"], data.labels["train"]):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cached_feature_net(data: ImageData) -> FeatureNet:
    """The classifier of these training data, trained where the cache folder does not hold it yet."""
    path = cache_folder() / f"features-{data_hash(data)[:16]}.pt"
    if not path.exists():
        save_feature_net(train_feature_net(data), path, data)
    return load_feature_net(path, data)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64. N must be at least 2."""
    features = features.double()
    return features.mean(0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Squared Fréchet distance of two Gaussians given as (mean, covariance): Heusel et al. 2017, 1706.08500, eq. 6.

    |m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½), in float64 by symmetric eigendecompositions.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return max(0.0, float(distance))


def nearest_distances(images: Tensor, training: Tensor) -> Tensor:
    """Root mean square pixel difference of each image to the training image nearest to it, float32 (B,).

    `images` float (B, C, H, W) in [-1, 1], `training` uint8 (N, H, W, C); the difference is on the scale of [-1, 1].
    """
    flat = images.flatten(1)
    best = torch.full((len(flat),), torch.inf, device=flat.device)
    for chunk in training.split(CHUNK):
        best = torch.minimum(best, torch.cdist(flat, to_unit(chunk).flatten(1)).amin(1))
    return best / flat.shape[1] ** 0.5


class ImageQuality:
    """Measures generated images against a split of real ones.

    Args:
        samples: how many images a measurement generates (the Fréchet distance falls with their number: keep it equal).
        splits: for which of "val" and "test" it is done.
        features: name of a classifier that comes with vrbench, or None to train one on the training split, once.
        fid: feature layer of torchmetrics' Inception FID (64, 192, 768 or 2048), or None to leave FID out. The first
            use downloads its network.

    Raises ValueError for other values, or where the network of FID cannot be had.
    """

    def __init__(self, samples: int, splits: list[str], features: str | None, fid: int | None) -> None:
        if samples < 2:
            raise ValueError(f"samples={samples}: the Fréchet distance needs at least 2 images; 512 is a good number")
        for split in splits:
            if split not in ("val", "test"):
                raise ValueError(f"splits={splits}: unknown split {split}; take val, test or both")
        kept = {path.stem: path for path in sorted(KEPT.glob("*.pt"))}
        if features is not None and features not in kept:
            raise ValueError(f"features={features}: unknown; take one of {', '.join(kept)}, or null to train one")
        self.samples = samples
        self.splits = splits
        self._path = None if features is None else kept[features]
        self._fid = None if fid is None else inception_fid(fid)
        self._net: FeatureNet | None = None
        self._real: dict[str, dict[str, Any]] = {}

    def check(self, data: ImageData) -> None:
        """Read the named classifier, if one is named. Raises ValueError where it does not fit the data."""
        if self._path is not None:
            self._net = load_feature_net(self._path, data)

    def measure(self, images: Tensor, data: ImageData, split: str) -> dict[str, float]:
        """Metrics of generated images (B, C, H, W) in [-1, 1] against the real ones of a split.

        `frechet_distance`; `confidence`, the classifier's mean top probability; `nearest_distance`, the mean distance
        to the nearest training image, and `nearest_distance_real`, the same of the split's own images: a model that
        copies its training images lies far below it. `fid` where asked for.
        """
        features, confidence = self._look(images, data)
        real = self._real_of(data, split)
        distances = nearest_distances(images, data.images["train"])
        metrics = {
            "frechet_distance": frechet_distance(moments(features), real["moments"]),
            "confidence": float(confidence.mean()),
            "nearest_distance": float(distances.mean()),
            "nearest_distance_real": real["nearest"],
        }
        if self._fid is not None:
            metrics["fid"] = self._inception(images, data.images[split])
        return metrics

    def _look(self, images: Tensor, data: ImageData) -> tuple[Tensor, Tensor]:
        """Features (B, 64) and top probabilities (B,) of images in [-1, 1]."""
        if self._net is None:
            self._net = cached_feature_net(data)
        self._net.to(images.device)
        looked = [self._net(chunk) for chunk in images.split(CHUNK)]
        top = [logits.softmax(1).amax(1) for _, logits in looked]
        return torch.cat([features for features, _ in looked]), torch.cat(top)

    def _real_of(self, data: ImageData, split: str) -> dict[str, Any]:
        """What is measured once of the real images: moments of their features, distance to the training images."""
        if split not in self._real:
            real = to_unit(data.images[split])
            nearest = nearest_distances(real[: self.samples], data.images["train"]).mean()
            self._real[split] = {"moments": moments(self._look(real, data)[0]), "nearest": float(nearest)}
        return self._real[split]

    def _inception(self, images: Tensor, real: Tensor) -> float:
        """FID by torchmetrics of as many images on either side as there are of both."""
        assert self._fid is not None
        count = min(len(images), len(real))
        self._fid.reset()
        self._fid.to(images.device)
        for batch, is_real in ((to_unit(real[:count]), True), (images[:count], False)):
            for chunk in batch.split(CHUNK):
                self._fid.update((chunk.expand(-1, 3, -1, -1) + 1) / 2, real=is_real)
        return float(self._fid.compute())


def inception_fid(layer: int) -> Any:
    """torchmetrics' FID on an Inception layer.

    Raises ModuleNotFoundError where torchmetrics is not installed, ValueError where its network cannot be had.
    """
    if find_spec("torchmetrics") is None:
        raise ModuleNotFoundError(f"fid={layer}: needs torchmetrics", name="torchmetrics")
    if find_spec("torch_fidelity") is None:
        raise ValueError(f"fid={layer}: needs torch-fidelity (pip install torch-fidelity); null leaves FID out")
    from torchmetrics.image.fid import FrechetInceptionDistance

    try:
        return FrechetInceptionDistance(feature=layer, normalize=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"fid={layer}: no FID network ({reason}); null leaves FID out") from error
