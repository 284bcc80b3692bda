"""The image classification task: order, augmentation, loss, evaluation, and a short training on the digits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional
from vrbench.tasks.image_classification import ImageClassification

from vrbench.data.images import ImageData, digits
from vrbench.models.mlp import MLP

CONF = Path(__file__).parents[2] / "conf"


def made_up(sizes: dict[str, int], classes: int = 5, channels: int = 3) -> ImageData:
    generator = torch.Generator().manual_seed(0)

    def pixels(count: int) -> torch.Tensor:
        return torch.randint(0, 256, (count, 6, 6, channels), dtype=torch.uint8, generator=generator)

    images = {split: pixels(size) for split, size in sizes.items()}
    labels = {split: torch.randint(0, classes, (size,), generator=generator) for split, size in sizes.items()}
    return ImageData(images, labels, classes)


def make(data: ImageData | None = None, **options) -> ImageClassification:
    arguments = {"batch_size": 8, "eval_batch_size": 7, "crop_padding": 2, "flip": True, "mean": [0.5, 0.4, 0.3]}
    arguments |= {"std": [0.2, 0.3, 0.4], "criterion": "cross_entropy", "label_smoothing": 0.0, "top_k": None}
    data = data or made_up({"train": 50, "val": 20, "test": 10})
    return ImageClassification("made-up", data, **(arguments | options))


def epoch(task: ImageClassification, order: int = 0, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """As the trainer does it: the augmentation is re-seeded for each batch by the batch's number."""
    augment = torch.Generator().manual_seed(1000 + start)
    batches = []
    for number, batch in enumerate(task.train_batches(torch.Generator().manual_seed(order), augment, start), start):
        batches.append(batch)
        augment.manual_seed(1000 + number + 1)
    return batches


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(first, second, strict=True)
    )


def test_an_epoch_shows_each_example_once_in_the_order_s_own_sequence():
    data = made_up({"train": 50, "val": 2, "test": 2})
    task = make(data, crop_padding=0, flip=False)
    assert (task.batches_per_epoch, task.units_per_batch) == (6, {"images": 8})
    shown = torch.randperm(50, generator=torch.Generator().manual_seed(4))[:48]
    batches = epoch(task, order=4)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels["train"][shown])
    scale = torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
    pixels = torch.cat([images for images, _ in batches]) * scale + torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    assert torch.equal((pixels * 255).round().byte(), data.images["train"][shown].permute(0, 3, 1, 2))


def test_the_order_is_the_seed_s_and_a_late_start_gives_the_same_rest():
    task = make()
    assert same(epoch(task, 1), epoch(task, 1))
    assert not same(epoch(task, 1), epoch(task, 2))
    for start in (0, 1, 5, 6):
        assert same(epoch(task, 1, start), epoch(task, 1)[start:])


def test_batches_are_float32_channels_last_and_the_data_stay_as_they_were():
    data = made_up({"train": 50, "val": 20, "test": 10})
    before = data.images["train"].clone()
    task = make(data)
    task.to(torch.device("cpu"))
    images, labels = epoch(task)[0]
    assert (images.dtype, images.shape, labels.dtype) == (torch.float32, (8, 3, 6, 6), torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    images.zero_()
    assert torch.equal(data.images["train"], before)


def test_a_training_split_below_the_batch_size_is_one_batch():
    task = make(made_up({"train": 5, "val": 2, "test": 2}))
    assert (task.batches_per_epoch, task.units_per_batch) == (1, {"images": 5})
    assert [len(labels) for _, labels in epoch(task)] == [5]


class Table(nn.Module):
    """Logits that depend on the image through its first pixel alone."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, classes, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0] @ self.weight


def by_hand(data: ImageData, split: str, model: Table) -> list[tuple[list[float], int]]:
    """float64 logits and label of each example, straight from the pixels."""
    pixels = data.images[split][:, 0, 0, :].double() / 255
    normalised = (pixels - torch.tensor([0.5, 0.4, 0.3]).double()) / torch.tensor([0.2, 0.3, 0.4]).double()
    logits = normalised @ model.weight.detach().double()
    return list(zip(logits.tolist(), data.labels[split].tolist(), strict=True))


def test_evaluate_equals_a_sum_by_hand_over_every_example():
    data = made_up({"train": 9, "val": 33, "test": 10})
    task, model = make(data, top_k=3, label_smoothing=0.3), Table(5)
    loss = hits = top = 0.0
    for logits, label in by_hand(data, "val", model):
        loss += math.log(sum(math.exp(value) for value in logits)) - logits[label]
        rank = sum(value > logits[label] for value in logits)
        hits, top = hits + (rank == 0), top + (rank < 3)
    metrics = task.evaluate(model, "val")
    assert set(metrics) == {"loss", "accuracy", "accuracy_top3"}
    assert metrics["loss"] == pytest.approx(loss / 33, rel=1e-5)
    assert (metrics["accuracy"], metrics["accuracy_top3"]) == pytest.approx((hits / 33, top / 33), rel=1e-12)
    assert 0 < hits < top < 33
    assert task.evaluate(model, "val") == metrics
    assert task.evaluate(model, "test") != metrics


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_both_criteria_equal_their_formulas(smoothing):
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    targets = torch.full((6, 4), smoothing / 4, dtype=torch.float64)
    targets[torch.arange(6), labels] += 1 - smoothing
    model, data = nn.Identity(), made_up({"train": 6, "val": 2, "test": 2}, classes=4)
    expected = {
        "cross_entropy": -(targets * logits.log_softmax(1)).sum(1).mean(),
        "squared_error": ((logits - targets) ** 2).sum(1).mean() / 2,
    }
    for criterion, value in expected.items():
        task = make(data, criterion=criterion, label_smoothing=smoothing)
        loss, metrics = task.loss(model, (logits, labels), torch.Generator())
        assert float(loss) == pytest.approx(float(value), rel=1e-6)
        assert float(metrics["accuracy"]) == pytest.approx(float((logits.argmax(1) == labels).double().mean()))


def test_probe_batches_add_up_to_the_loss_of_the_first_training_examples():
    data = made_up({"train": 50, "val": 2, "test": 2})
    task, model = make(data), Table(5)
    chunks = task.probe_batches(size=21, microbatch=8)
    assert [len(labels) for _, (_, labels) in chunks] == [8, 8, 5]
    assert sum(weight for weight, _ in chunks) == pytest.approx(1, abs=1e-12)
    total = sum(weight * task.loss(model, batch, torch.Generator())[0] for weight, batch in chunks)
    logits, labels = zip(*by_hand(data, "train", model)[:21], strict=True)
    assert total.item() == pytest.approx(float(functional.cross_entropy(torch.tensor(logits), torch.tensor(labels))))
    assert sum(len(labels) for _, (_, labels) in task.probe_batches(1000, 1000)) == 50


def test_without_a_size_evaluation_has_the_one_that_suits_a_processor():
    task = make(made_up({"train": 8, "val": 600, "test": 2}), eval_batch_size=None)
    seen: list[int] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 5))
    model.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    task.evaluate(model, "val")
    assert seen == [64] * 9 + [24]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: "),
        ({"eval_batch_size": 0}, "eval_batch_size=0: "),
        ({"crop_padding": -1}, "crop_padding=-1: "),
        ({"crop_padding": 7}, "crop_padding=7: "),
        ({"mean": [0.5]}, r"mean=\[0.5\]: give a list of 3 "),
        ({"std": [0.2, 0.0, 0.2]}, "std=.* above 0"),
        ({"std": [0.2, float("nan"), 0.2]}, "std=.* finite"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: "),
        ({"top_k": 5}, "top_k=5: give a whole number from 2 to 4"),
        ({"batch_size": "many"}, "batch_size=many: "),
        ({"mean": 0.5}, r"mean=0.5: give a list of 3 "),
        ({"flip": "maybe"}, "flip=maybe: "),
        ({"criterion": "hinge"}, "criterion=hinge: choose one of cross_entropy, squared_error"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(**options)


def test_data_that_do_not_fit_together_are_refused():
    good = made_up({"train": 4, "val": 3, "test": 2})
    with pytest.raises(ValueError, match="test labels: 5 is outside 0 … 4"):
        ImageData(good.images, good.labels | {"test": torch.tensor([0, 5])}, 5)
    with pytest.raises(ValueError, match="val split: 0 images"):
        ImageData(good.images | {"val": good.images["val"][:0]}, good.labels | {"val": good.labels["val"][:0]}, 5)
    with pytest.raises(ValueError, match=r"test images: .* all splits need one shape"):
        ImageData(good.images | {"test": good.images["test"][:, :5]}, good.labels, 5)


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "mnist", "imagefolder"])
def test_the_yaml_names_exactly_the_options_of_its_code(name):
    import inspect

    from hydra.utils import get_method

    task = OmegaConf.load(CONF / "task" / f"{name}.yaml").task
    for node, target in ((task, ImageClassification), (task.data, get_method(task.data._target_))):
        assert {key for key in node if not key.startswith("_")} == set(inspect.signature(target).parameters)
    assert len(task.mean) == len(task.std)


def test_the_mlp_learns_the_digits():
    task = make(digits(0.2, 0.2, 0, None), batch_size=64, crop_padding=0, flip=False, mean=[0.3055], std=[0.3759])
    torch.manual_seed(0)
    model = MLP(task.input_shape, task.output_dim, [128, 128], "relu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = task.evaluate(model.eval(), "val")["accuracy"]
    for number in range(15):
        for batch in task.train_batches(torch.Generator().manual_seed(number), torch.Generator()):
            optimizer.zero_grad()
            task.loss(model, batch, torch.Generator())[0].backward()
            optimizer.step()
    assert before < 0.4
    assert task.evaluate(model.eval(), "val")["accuracy"] >= 0.95
