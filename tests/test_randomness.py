"""One random stream per consumer."""

from __future__ import annotations

import torch

from vrbench.randomness import Streams, derive_seed


def test_streams_are_independent_and_stable() -> None:
    assert derive_seed(0, "order", 0) == 2473306460474216360
    seeds = {derive_seed(s, c, i) for s in range(3) for c in ("order", "noise", "probe") for i in range(50)}
    assert len(seeds) == 450
    streams = Streams(0)
    first = torch.rand(3, generator=streams.generator("order"))
    torch.rand(3, generator=streams.generator("noise"))
    assert torch.equal(first, torch.rand(3, generator=streams.generator("order")))
