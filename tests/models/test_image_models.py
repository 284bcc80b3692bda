"""Image models: parameter counts from hand formulas, shapes, what they refuse, and one forward pass by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from vrbench.models.deeper_cnn import DeeperCNN
from vrbench.models.mlp import MLP
from vrbench.models.resnet18 import resnet18
from vrbench.models.resnet32 import BasicBlock, CifarResNet


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def conv(before: int, after: int, kernel: int = 3) -> int:
    return before * after * kernel**2


def test_mlp_is_the_formula_and_its_size_is_the_hand_count():
    model = MLP((1, 8, 8), 10, hidden=[64, 64], activation="tanh")
    assert count(model) == (64 * 64 + 64) * 2 + 64 * 10 + 10
    inputs = torch.randn(5, 1, 8, 8)
    first, second, last = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    expected = last(torch.tanh(second(torch.tanh(first(inputs.reshape(5, 64))))))
    torch.testing.assert_close(model(inputs), expected)
    assert count(MLP((3, 4, 4), 7, hidden=[], activation="relu")) == 48 * 7 + 7


def test_deeper_cnn_has_the_paper_s_size():
    model = DeeperCNN((3, 32, 32), 10, channels=[64, 128, 256], hidden=512)
    convolutions = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
    expected = sum(conv(before, after) + after + 2 * after for before, after in convolutions)
    assert count(model) == expected + 4096 * 512 + 512 + 512 * 10 + 10
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


def test_resnet32_has_he_s_size_and_110_layers_theirs():
    def expected(blocks: int) -> int:
        stages = [(16, 16), (16, 32), (32, 64)]
        inner = sum(conv(a, b) + (2 * blocks - 1) * conv(b, b) + 2 * blocks * 2 * b for a, b in stages)
        return conv(3, 16) + 2 * 16 + inner + 64 * 10 + 10

    assert count(CifarResNet((3, 32, 32), 10, depth=32, width=16)) == expected(5) == 464_154
    assert count(CifarResNet((3, 32, 32), 10, depth=110, width=16)) == expected(18)  # 1.7 M in their table 6
    weighted = [m for m in CifarResNet((3, 32, 32), 10, 32, 16).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 32


def test_the_shortcut_is_option_a():
    block = BasicBlock(2, 6, stride=2).eval()
    inputs = torch.randn(3, 2, 5, 4)
    shortcut = block.shortcut(inputs)
    expected = torch.zeros(3, 6, 3, 2)
    expected[:, 2:4] = inputs[:, :, ::2, ::2]
    assert torch.equal(shortcut, expected)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(inputs), functional.relu(expected))
    assert BasicBlock(2, 2, stride=1).shortcut(inputs) is inputs


def test_resnet32_starts_with_he_s_standard_deviation():
    torch.manual_seed(0)
    model = CifarResNet((3, 32, 32), 10, 32, 16)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            wanted = (2 / (9 * module.out_channels)) ** 0.5
            assert float(module.weight.detach().std() / wanted) == pytest.approx(1, rel=0.03)


def test_resnet18_has_a_small_stem_and_keeps_a_cifar_image_whole():
    model = resnet18((3, 32, 32), 10, stem="cifar")
    imagenet = resnet18((3, 32, 32), 10, stem="imagenet")
    assert count(model) == count(imagenet) - conv(3, 64, 7) + conv(3, 64, 3) == 11_173_962
    seen: list[torch.Size] = []
    model.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))  # type: ignore[union-attr]
    model.eval()(torch.randn(1, 3, 32, 32))
    assert seen == [torch.Size([1, 64, 32, 32])]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize(
    "build",
    [
        lambda shape: MLP(shape, 7, [16], "relu"),
        lambda shape: DeeperCNN(shape, 7, [8, 16, 32], 16),
        lambda shape: CifarResNet(shape, 7, 8, 4),
        lambda shape: resnet18(shape, 7, "cifar"),
    ],
)
def test_every_model_maps_images_to_logits_in_both_memory_formats(build, shape):
    torch.manual_seed(0)
    model = build(shape).eval()
    images = torch.randn(2, *shape)
    logits = model(images)
    assert logits.shape == (2, 7)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(last), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP((1, 8, 8), 10, [0], "relu"), r"hidden=\[0\]: "),
        (lambda: MLP((1, 8, 8), 10, [8], "swish"), "activation=swish: choose one of relu, tanh"),
        (lambda: DeeperCNN((3, 7, 32), 10, [64, 128, 256], 512), r"channels=.* at least 8×8 pixels .*\(3, 7, 32\)"),
        (lambda: DeeperCNN((65,), 10, [64, 128, 256], 512), r"input shape \(65,\): it takes images"),
        (lambda: DeeperCNN((3, 32, 32), 10, [], 512), r"channels=\[\]"),
        (lambda: CifarResNet((3, 32, 32), 10, 18, 16), r"depth=18: give 6n \+ 2"),
        (lambda: CifarResNet((3, 3, 3), 10, 32, 16), r"input shape \(3, 3, 3\): .* 4×4"),
        (lambda: resnet18((3, 16, 16), 10, "imagenet"), "stem=imagenet: needs .* 32×32"),
        (lambda: resnet18((64,), 10, "cifar"), r"input shape \(64,\): it takes images"),
        (lambda: resnet18((3, 16, 16), 10, "tiny"), "stem=tiny: choose cifar"),
    ],
)
def test_models_refuse_what_they_cannot_take(build, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build()
