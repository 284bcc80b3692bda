"""Small made-up data in the layout of the real ones, for every part that reads them from a path; and short settings."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

CLASSES, IMAGES, SIDE = 8, 48, 16
WORDS = [f"{a}{b}{c}" for a in "bdfk" for b in "aeiou" for c in "lmnrst"]

MOST = {
    "task.batch_size": 8,
    "task.context": 16,
    "task.eval_examples": 32,
    "task.eval_walks": 64,
    "task.render_samples": 4,
    "task.sampler.steps": 2,
    "task.quality.samples": 32,
    "task.data.image_size": SIDE,
    "trainer.accumulate": 2,
    "model.layers": 1,
    "model.width": 32,
    "model.feed_forward": 64,
    "model.base_channels": 8,
    "probe.eos.every": 3,
    "probe.eos.size": 32,
    "probe.eos.microbatch": 16,
}
"""Settings that make a part quick to try: what it has more of is cut down to this."""

LEAST_SHARE = 0.1
"""Of made-up data, which are few, a split needs so many."""


class Supplies:
    """What a composed config is given, so that all of its parts can be built here: a callable for `Kit`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pretrained = functools.cache(self._pretrained)

    def __call__(self, config: DictConfig) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, most in MOST.items():
            there = OmegaConf.select(config, key)
            if there is not None and there > most:
                found[key] = most
        if isinstance(OmegaConf.select(config, "model.size"), str):
            found["model.size"] = "tiny"
        for key in ("task.data.val_fraction", "task.data.test_fraction"):
            there = OmegaConf.select(config, key)
            if there is not None and there < LEAST_SHARE:
                found[key] = LEAST_SHARE
        for key in ("task.data", "task.tokenizer", "model"):
            node = OmegaConf.select(config, key)
            if node is not None and "path" in set(node):  # a value that is missing counts
                found[f"{key}.path"] = str(self.place(node))
        quality = OmegaConf.select(config, "task.quality")
        if quality is not None and quality.features is None:  # a classifier of these data would be trained first
            found["task.quality"] = None
        return found

    def place(self, node: DictConfig) -> Path:
        """A folder or file that the target of this node reads."""
        kind = str(node["_target_"]).rpartition(".")[2]
        if kind == "Pretrained":
            return self.pretrained()
        stated = {key: OmegaConf.select(node, key, throw_on_missing=False) for key in node if key != "path"}
        name = hashlib.sha1(repr(stated).encode()).hexdigest()[:12]
        folder = self.folder / f"{kind}-{name}"
        if not folder.exists():
            folder.mkdir(parents=True)
            WRITERS[kind](folder, stated)
        return folder

    def _pretrained(self) -> Path:
        """A GPT-2 of one layer with its tokenizer, as transformers saves them."""
        import torch
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

        folder = self.folder / "pretrained"
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        pipeline = Tokenizer(models.BPE({token: number for number, token in enumerate(["<|end|>", *alphabet])}, []))
        pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token="<|end|>").save_pretrained(folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            shape = GPT2Config(vocab_size=257, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                               eos_token_id=0)  # fmt: skip
            GPT2LMHeadModel(shape).save_pretrained(folder)
        return folder


def picture(number: int, channels: int) -> bytes:
    """A PNG of noise, another one for each number."""
    shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, 3)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lines(seed: int, count: int) -> list[str]:
    """Lines of made-up words, no two alike."""
    chance = random.Random(seed)
    return [f"{' '.join(chance.choices(WORDS, k=9))} .\n" for _ in range(count)]


def hub_images(folder: Path, stated: dict[str, Any]) -> None:
    """Images and class labels in the hub's layout: one parquet file a split."""
    import datasets

    image, label = stated["image_column"], stated["label_column"]
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(CLASSES)})
    for split, first in ((stated["train_split"], 0), (stated["test_split"], 1000)):
        pictures = [
            {"bytes": picture(first + number, stated["channels"] or 3), "path": None} for number in range(IMAGES)
        ]
        rows = {image: pictures, label: [number % CLASSES for number in range(IMAGES)]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def image_folder(folder: Path, stated: dict[str, Any]) -> None:
    """One folder of images a class."""
    for number in range(IMAGES):
        path = folder / f"class-{number % 3}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number, stated["channels"] or 3))


def hub(folder: Path, stated: dict[str, Any]) -> None:
    """Text in the hub's layout: a column of lines in three splits."""
    import datasets

    for seed, (split, count) in enumerate((("train", 200), ("validation", 30), ("test", 30))):
        rows = datasets.Dataset.from_dict({stated["column"]: lines(seed, count)})
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def documents(folder: Path, stated: dict[str, Any]) -> None:
    """Documents in the hub's layout: a column of one split, in two files of a folder below."""
    import datasets

    (folder / "data").mkdir()
    for number in range(2):
        texts = ["".join(lines(1000 * number + one, 4)) for one in range(100)]
        rows = datasets.Dataset.from_dict({stated["column"]: texts, "score": [3] * 100})
        rows.to_parquet(folder / "data" / f"train-0000{number}-of-00002.parquet")


def files(folder: Path, stated: dict[str, Any]) -> None:
    """A folder of text files."""
    for number in range(20):
        (folder / f"{number}.txt").write_text("".join(lines(number, 12)))


def prompt_completion(folder: Path, stated: dict[str, Any]) -> None:
    """Sums as questions and answers, one file a split."""
    for split, sums in (("train", range(40)), ("val", range(40, 50)), ("test", range(50, 60))):
        rows = [{stated["prompt_field"]: f"{n}+1=", stated["completion_field"]: str(n + 1)} for n in sums]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


WRITERS = {write.__name__: write for write in (hub_images, image_folder, hub, documents, files, prompt_completion)}
"""By the function of vrbench.data that reads them."""
