"""Random streams: one generator per consumer, each a pure function of (seed, consumer, index).

Because a stream is named by its index (the epoch, the step) and not by how often it was drawn from, a resumed run needs
no generator state, a second evaluation of the same step sees the same noise, and two optimizers see the same batches.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, consumer: str, index: int = 0) -> int:
    """A 63-bit seed for one stream: the same on every machine and in every process."""
    digest = hashlib.blake2s(f"{seed}/{consumer}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Streams:
    """The random streams of one run: `init`, `order`, `augment`, `noise`, `dropout`, `probe`, …

    `seed` is the run's seed. Consumers never share a stream, so that switching one of them on or off changes no other.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.device = torch.device(device)
        self._cpu = torch.device("cpu")

    def generator(self, consumer: str, index: int = 0, device: torch.device | str | None = None) -> torch.Generator:
        """A fresh generator for the stream, on `device` (the run's own when not given)."""
        generator = torch.Generator(self.device if device is None else device)
        return self.reseed(generator, consumer, index)

    def reseed(self, generator: torch.Generator, consumer: str, index: int) -> torch.Generator:
        """Point an existing generator at the start of a stream (cheaper than a new one in the training loop)."""
        return generator.manual_seed(derive_seed(self.seed, consumer, index))

    def reseed_global(self, consumer: str, index: int = 0) -> None:
        """Seed torch's own generator of the run's device, which dropout and initialisers draw from."""
        seed = derive_seed(self.seed, consumer, index)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)
