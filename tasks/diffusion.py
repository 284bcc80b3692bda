"""Image generation by denoising diffusion: DDPM training (Ho et al. 2020, arXiv 2006.11239) on fixed held-out noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from vrbench.contracts import WHOLE, Share
from vrbench.data.images import ImageData
from vrbench.data.placing import brought, placed
from vrbench.metrics.image_quality import ImageQuality, to_unit
from vrbench.objectives.diffusion_process import DiffusionProcess, Sampler

Images = tuple[Tensor]
EVAL_SEED = 20_250_519
"""Seed of everything that evaluation and pictures draw: never the run's, so that two runs meet the same noise."""

SAMPLED_TOGETHER = 64
"""Images sampled in one batch: fixed, so that the training batch does not decide the noise they begin with."""


class Diffusion:
    """Train a model to undo the noise of a diffusion process; sample images from it and measure them.

    A model is called as `model(x_t, t)` with noisy images float32 (B, C, H, W) and timesteps int64 (B,), and returns
    (B, C, H, W): the noise, v or x0, as `process.prediction` says. Images are scaled to [-1, 1].

    Args:
        name: of the task, in the run's name.
        data: images of the three splits.
        process: the forward process and what is predicted.
        sampler: how images are drawn for pictures and quality metrics.
        quality: metrics of generated images, or None for none.
        batch_size: images in a training batch; an epoch drops what is left over.
        flip: mirror half of the training images.
        eval_examples: (image, timestep, noise) triples in the fixed set that a split is evaluated on; the images are
            gone through in turn, the timesteps are spread evenly over the chain.
        buckets: equal ranges of timesteps whose losses are reported as `loss_t0` (least noise) and up.
        render_samples: images in a picture.

    Raises ValueError for sizes that do not fit the data or the process, or a classifier made for other images.
    """

    metric = "val/loss"
    direction: Literal["min", "max"] = "min"

    def __init__(
        self,
        name: str,
        data: ImageData,
        process: DiffusionProcess,
        sampler: Sampler,
        quality: ImageQuality | None,
        batch_size: int,
        flip: bool,
        eval_examples: int,
        buckets: int,
        render_samples: int,
    ) -> None:
        count = len(data.images["train"])
        if not 1 <= batch_size <= count:
            raise ValueError(f"batch_size={batch_size}: must lie between 1 and the {count} training images")
        if not 1 <= buckets <= process.timesteps:
            raise ValueError(f"buckets={buckets}: must lie between 1 and timesteps={process.timesteps}")
        if eval_examples < buckets:
            raise ValueError(f"eval_examples={eval_examples}: must be at least buckets={buckets}; 1024 is usual")
        if sampler.steps > process.timesteps:
            raise ValueError(f"sampler.steps={sampler.steps}: must not exceed process.timesteps={process.timesteps}")
        if render_samples < 1:
            raise ValueError(f"render_samples={render_samples}: a picture shows at least 1 sample")
        if quality is not None:
            quality.check(data)
        self.name = name
        self.data = data
        self.process = process
        self.sampler = sampler
        self.quality = quality
        self.batch_size = batch_size
        self.flip = flip
        self.eval_examples = eval_examples
        self.buckets = buckets
        self.render_samples = render_samples
        self.input_shape = data.shape
        self.output_dim = data.shape[0]
        self.batches_per_epoch = count // batch_size
        self.units_per_batch = {"images": batch_size}
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move process tables and images (a split of 2 GB or less) to the device."""
        self.device = device
        images = {split: placed(pixels, device) for split, pixels in self.data.images.items()}
        labels = {split: label.to(device) for split, label in self.data.labels.items()}
        self.data = ImageData(images, labels, self.data.classes)
        self.process.to(device)

    def train_batches(
        self, order: Generator, augment: Generator, start: int = 0, share: Share = WHOLE
    ) -> Iterator[Images]:
        """One epoch of shuffled batches, each a tuple of images float32 (B, C, H, W) in [-1, 1].

        An image is flipped in any share as it is in the whole batch.
        """
        pixels = self.data.images["train"]
        shuffled = torch.randperm(len(pixels), generator=order).to(self.device)
        for number in range(start, self.batches_per_epoch):
            index = shuffled[number * self.batch_size : (number + 1) * self.batch_size]
            images = to_unit(brought(pixels[share.of(index).to(pixels.device)], self.device))
            if self.flip:
                mirrored = share.of(torch.rand(len(index), generator=augment, device=self.device) < 0.5)
                images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
            yield (images,)

    def loss(self, model: nn.Module, batch: Images, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the prediction at random timesteps (Ho et al., eq. 14), weighted where asked for.

        With min-SNR weights the plain error is the metric `mse`.
        """
        (images,) = batch
        t = self.process.draw_timesteps(len(images), generator)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        output = model(self.process.add_noise(images, noise, t), t).float()
        target = self.process.target(images, noise, t)
        if self.process.min_snr_gamma is None:
            return F.mse_loss(output, target), {}
        errors = (output - target).square().flatten(1).mean(1)
        return (errors * self.process.weight(t).to(errors.dtype)).mean(), {"mse": errors.detach().mean()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        """Unweighted loss on the split's fixed set, in all and by range of timesteps, and the variational bound.

        `bits_per_dim` is the bound on the negative log-likelihood of the 8-bit pixels: unlike the loss it means the
        same for every prediction, weighting and schedule. Quality metrics (see ImageQuality) where asked for.
        """
        errors, bounds, timesteps = [], [], []
        for images, noise, t in self._fixed_set(split):
            x_t = self.process.add_noise(images, noise, t)
            output = model(x_t, t)
            errors.append((output - self.process.target(images, noise, t)).square().flatten(1).mean(1).double())
            clean = self.process.recover(output, x_t, t).clamp(-1, 1)
            terms = self.process.timesteps * self.process.bound_terms(images, x_t, clean, t)
            bounds.append((terms + self.process.prior_term(images)).double())
            timesteps.append(t)
        error, bucket = torch.cat(errors), torch.cat(timesteps) * self.buckets // self.process.timesteps
        metrics = {"loss": float(error.mean())}
        for number in range(self.buckets):
            metrics[f"loss_t{number}"] = float(error[bucket == number].mean())
        metrics["bits_per_dim"] = float(torch.cat(bounds).mean())
        if self.quality is not None and split in self.quality.splits:
            metrics |= self.quality.measure(self.samples(model, self.quality.samples), self.data, split)
        return metrics

    def _fixed_set(self, split: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The same batches of images, noise and timesteps at every call, drawn on the CPU for every device."""
        generator = torch.Generator().manual_seed(EVAL_SEED)
        pixels, count = self.data.images[split], self.eval_examples
        spread = torch.arange(count) * self.process.timesteps // count
        timesteps = spread[torch.randperm(count, generator=generator)].to(self.device)
        chosen = (torch.arange(count) % len(pixels)).to(pixels.device)
        noise = torch.randn((count, *self.input_shape), generator=generator)
        for start in range(0, count, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield to_unit(brought(pixels[chosen[part]], self.device)), noise[part].to(self.device), timesteps[part]

    @torch.no_grad()
    def samples(self, model: nn.Module, count: int) -> Tensor:
        """Generated images float32 (count, C, H, W) in [-1, 1] from fixed noise; the first ones are always the same."""
        drawn = []
        for start in range(0, count, SAMPLED_TOGETHER):
            generator = torch.Generator(self.device).manual_seed(EVAL_SEED + start)
            shape = (min(SAMPLED_TOGETHER, count - start), *self.input_shape)
            drawn.append(self.sampler.sample(model, self.process, shape, generator))
        return torch.cat(drawn)

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, Images]]:
        """The first training images in chunks, each with its share of them as weight."""
        pixels = self.data.images["train"][:size]
        return [(len(chunk) / len(pixels), (to_unit(chunk),)) for chunk in pixels.split(microbatch)]

    def render(self, model: nn.Module) -> Tensor:
        """A near-square grid of samples, uint8 (height, width, 3); small images are magnified (bicubic) to 32."""
        images = self.samples(model, self.render_samples)
        scale = max(1, -(-32 // images.shape[3]))
        if scale > 1:
            images = F.interpolate(images, scale_factor=scale, mode="bicubic").clamp(-1, 1)
        columns = next(c for c in range(1, len(images) + 1) if c * c >= len(images))
        rows = -(-len(images) // columns)
        blank = torch.ones(rows * columns - len(images), *images.shape[1:], device=images.device)
        tiles = F.pad(torch.cat([images, blank]), (1, 1, 1, 1), value=1.0)
        grid = tiles.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
        grid = ((grid + 1) * 127.5).round().to(torch.uint8).cpu()
        return grid.expand(-1, -1, 3) if grid.shape[2] == 1 else grid[:, :, :3]
