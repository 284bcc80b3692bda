"""The U-Nets: shapes, sizes, what they refuse, and what they are made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from vrbench.models.paper_unet import PaperUNet
from vrbench.models.unet_blocks import SelfAttention, sinusoidal_embedding

ROOT = Path(__file__).parents[2]


def build(model: str, shape: tuple[int, ...], output_dim: int | None = None, **changes: Any) -> nn.Module:
    config = OmegaConf.merge(OmegaConf.load(ROOT / "conf" / "model" / f"{model}.yaml"), changes)
    torch.manual_seed(0)
    return instantiate(config)(shape, shape[0] if output_dim is None else output_dim)


SMALL = {"unet_tiny": {}, "paper_unet": {"base_channels": 8}, "unet2d": {}}


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 28)])
def test_gives_back_the_shape_of_its_input(model: str, shape: tuple[int, int, int]) -> None:
    net = build(model, shape, **SMALL[model])
    x, t = torch.randn(2, *shape), torch.tensor([0, 399])
    out = net(x, t)
    assert out.shape == x.shape
    out.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("model", ["unet_tiny", "paper_unet"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 13), (1, 28, 28)])
def test_takes_any_image_size(model: str, shape: tuple[int, int, int]) -> None:
    net = build(model, shape, **SMALL[model])
    assert net(torch.randn(2, *shape), torch.tensor([3, 5])).shape == (2, *shape)


@pytest.mark.parametrize("model", SMALL)
def test_hears_the_timestep(model: str) -> None:
    net = build(model, (1, 8, 8), **SMALL[model]).eval()
    for p in net.parameters():  # blocks start as their shortcuts: wake the zero-initialised layers
        if float(p.detach().abs().sum()) == 0:
            nn.init.normal_(p, std=0.1)
    x = torch.randn(1, 1, 8, 8)
    early, late = net(x, torch.tensor([5])), net(x, torch.tensor([350]))
    assert float((early - late).detach().abs().max()) > 1e-3


def test_unet_tiny_is_small_and_needs_no_diffusers() -> None:
    sizes = [sum(p.numel() for p in build("unet_tiny", (c, s, s)).parameters()) for c, s in ((1, 8), (1, 28), (3, 32))]
    assert max(sizes) < 300_000
    script = "import sys; import vrbench.models.unet_tiny; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_paper_unet_has_the_paper_s_layers() -> None:
    with torch.device("meta"):
        net = build("paper_unet", (1, 28, 28))
    assert isinstance(net, PaperUNet)
    widths = [stack.blocks[-1].conv2.out_channels for stack in net.down]
    assert widths == [96, 192, 384, 768, 768]
    norms = [module for module in net.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {8}
    assert net.time.width == 128
    attention = [module for module in net.modules() if isinstance(module, SelfAttention)]
    assert len(attention) == 1
    assert attention[0].qkv.in_channels == 768


@pytest.mark.parametrize(
    ("model", "shape", "output_dim", "changes", "says"),
    [
        ("unet2d", (1, 28, 28), 1, {"channels": [32, 32, 32, 32]}, "28x28 is not divisible by 8"),
        ("unet2d", (1, 8, 8), 1, {"groups": 5}, "groups=5: must divide"),
        ("unet_tiny", (64,), 10, {}, "use it with a diffusion task"),
        ("unet_tiny", (1, 8, 8), 10, {}, "use it with a diffusion task"),
        ("unet_tiny", (1, 8, 8), 1, {"groups": 7}, "groups=7: must divide"),
        ("unet_tiny", (1, 8, 8), 1, {"channels": []}, r"channels=\[\]: "),
        ("unet_tiny", (1, 8, 8), 1, {"time_features": 1}, "time_features=1: "),
        ("paper_unet", (1, 8, 8), 1, {"groups": 0}, "groups=0: must divide"),
        ("paper_unet", (1, 8, 8), 1, {"blocks": 0}, "blocks=0: "),
        ("paper_unet", (1, 8, 8), 1, {"multipliers": []}, r"multipliers=\[\]: "),
    ],
)
def test_refuses_what_cannot_work(
    model: str, shape: tuple[int, ...], output_dim: int, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        build(model, shape, output_dim, **changes)


def test_attention_is_scaled_dot_product_attention_and_differentiates_twice() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, groups=2).double()
    nn.init.normal_(attention.out.weight)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    q, k, v = attention.qkv(attention.norm(x)).flatten(2).mT.chunk(3, dim=2)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = nn.functional.scaled_dot_product_attention(q, k, v)
    expected = x + attention.out(expected.mT.unflatten(2, (3, 5)))
    torch.testing.assert_close(attention(x), expected, rtol=1e-12, atol=1e-12)
    (first,) = torch.autograd.grad(attention(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert torch.isfinite(second).all()


def test_sinusoidal_embedding_by_hand() -> None:
    embedded = sinusoidal_embedding(torch.tensor([0, 2]), 4)
    slow = torch.tensor(2e-4)
    fast = torch.tensor(2.0)
    expected = torch.stack(
        [torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.stack([fast.sin(), slow.sin(), fast.cos(), slow.cos()])]
    )
    torch.testing.assert_close(embedded, expected)
