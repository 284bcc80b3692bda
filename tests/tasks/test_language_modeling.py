"""The two text tasks: losses by hand and by transformers, every token once, batches, refusals, fine-tuning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vrbench.tasks.language_modeling import LanguageModeling, scoring_windows
from vrbench.tasks.question_answering import IGNORED, QuestionAnswering

from vrbench.data.text import Corpus, Pairs
from vrbench.data.tokenization import Char, Pretrained, Tokenizer, Word

Call = Callable[..., int]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def task_of(corpus: Corpus, tokenizer: Tokenizer, **changes: Any) -> LanguageModeling:
    options: dict[str, Any] = {
        "name": "t",
        "batch_size": 1,
        "eval_batch_size": 2,
        "context": 3,
        "windows": "contiguous",
        "stride": None,
    }
    return LanguageModeling(data=corpus, tokenizer=tokenizer, **(options | changes))


def order(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Bigrams(nn.Module):
    """Logits looked up by the current token alone."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(probabilities.log())

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table[tokens]


# ---- the task by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "stride"), [(3, None), (2, 1), (1, 1)])
def test_every_metric_by_hand(context: int, stride: int | None) -> None:
    """Ids: <unk> 0, <eos> 1, a 2, b 3. Validation `a b` is predicted from <eos> with 1/2, 1/4, 1/8: six bits in all."""
    task = task_of(Corpus(["a a b\n"], ["a b\n"], ["b a\n"]), Word(1), context=context, stride=stride)
    table = torch.full((4, 4), 1e-9)
    table[1] = torch.tensor([0.25, 0.125, 0.5, 0.125])  # after <eos>: a is likeliest, and right
    table[2] = torch.tensor([0.5, 0.125, 0.125, 0.25])  # after a: <unk> is likeliest, b is right
    table[3] = torch.tensor([0.125, 0.125, 0.5, 0.25])  # after b: a is likeliest, <eos> is right
    with torch.no_grad():
        metrics = task.evaluate(Bigrams(table), "val")
    assert metrics["loss"] == pytest.approx(2 * math.log(2), rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(4, rel=1e-6)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert metrics["bits_per_byte"] == pytest.approx(6 / 4, rel=1e-6)  # a, space, b, line end
    # training has <unk> 0, <eos> 1, a 2, b 1 times; plus one each, of 8: a 3/8, b 2/8, <eos> 2/8
    assert metrics["unigram_perplexity"] == pytest.approx((8 / 3 * 4 * 4) ** (1 / 3), rel=1e-6)


def test_training_loss_by_hand() -> None:
    task = task_of(Corpus(["a a b\n"], ["a b\n"], ["b a\n"]), Word(1))
    table = torch.tensor([[0.25] * 4, [0.25, 0.125, 0.5, 0.125], [0.125, 0.125, 0.25, 0.5], [0.125, 0.25, 0.5, 0.125]])
    batch = next(iter(task.train_batches(order(), order())))
    assert batch.tolist() == [[1, 2, 2, 3]]
    loss, _ = task.loss(Bigrams(table), batch, order())
    assert float(loss.detach()) == pytest.approx(math.log(2 * 4 * 2) / 3, rel=1e-6)
    loss.backward()


def test_windows_score_every_token_once() -> None:
    for context in range(1, 8):
        for stride in range(1, context + 1):
            for targets in range(context, 25):
                scored: list[int] = []
                for start, skip in scoring_windows(targets, context, stride):
                    assert 0 <= start <= targets - context
                    assert start == 0 or skip >= context - stride  # how much context is promised
                    scored += range(start + skip, start + context)
                assert scored == list(range(targets))


def test_sliding_evaluation_equals_one_token_at_a_time() -> None:
    from vrbench.models.transformer_lm import TransformerLM

    torch.manual_seed(0)
    task = task_of(Corpus(["abcdefgh" * 9], ["hgabacfedba"], ["gh"]), Char(), context=2, stride=1)
    model = TransformerLM((2,), task.output_dim, 1, 16, 2, 32, 0.0, False).eval()
    stream = task.streams["val"].long()
    nats = []
    with torch.no_grad():
        for place in range(1, len(stream)):
            logits = model(stream[max(0, place - 2) : place].unsqueeze(0))[0, -1]
            nats.append(float(-logits.log_softmax(-1)[stream[place]]))
        metrics = task.evaluate(model, "val")
    assert metrics["loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-6)
    assert len(nats) == 12


# ---- batches --------------------------------------------------------------------------------------------------------

LETTERS = Corpus(["".join(chr(97 + number) for number in range(26))], ["abcabc"], ["defdef"])


def epoch(task: LanguageModeling, seed: int, start: int = 0) -> list[Tensor]:
    return list(task.train_batches(order(seed), order(), start))


@pytest.mark.parametrize("windows", ["contiguous", "random"])
def test_batches_follow_the_order_generator(windows: str) -> None:
    task = task_of(LETTERS, Char(), batch_size=2, windows=windows)
    batches = epoch(task, 0)
    assert len(batches) == task.batches_per_epoch == 27 // 3 // 2
    assert all(batch.shape == (2, 4) and batch.dtype == torch.int64 for batch in batches)
    text = task.streams["train"].tolist()
    for row in torch.cat(batches).tolist():
        begin = text.index(row[0])
        assert row == text[begin : begin + 4] or row[0] == 1  # the separator stands at both ends
    assert torch.equal(torch.cat(epoch(task, 0, start=2)), torch.cat(batches[2:]))
    assert not torch.equal(torch.cat(epoch(task, 1)), torch.cat(batches))
    assert task.units_per_batch == {"tokens": 6}
    assert task.input_shape == (3,)
    assert task.output_dim == 28


def test_contiguous_batches_hold_every_target_once() -> None:
    task = task_of(LETTERS, Char(), batch_size=3)
    targets = torch.cat(epoch(task, 0))[:, 1:].flatten()
    assert sorted(targets.tolist()) == [1, *range(2, 28)]


def test_random_windows_reach_both_ends() -> None:
    task = task_of(LETTERS, Char(), windows="random")
    begins = {int(batch[0, 0]) for seed in range(40) for batch in epoch(task, seed)}
    ends = {int(batch[0, -1]) for seed in range(40) for batch in epoch(task, seed)}
    assert 1 in begins
    assert 1 in ends


def test_probe_batches_weigh_up_to_the_whole() -> None:
    task = task_of(LETTERS, Char())
    model = Bigrams(torch.rand(28, 28, generator=order(3)) + 0.1)
    (_, whole), *none = task.probe_batches(5, 5)
    assert not none
    assert whole[:, 0].tolist() == task.streams["train"][[0, 3, 6, 9, 12]].tolist()
    parts = task.probe_batches(5, 2)
    assert [len(batch) for _, batch in parts] == [2, 2, 1]
    total = sum(weight * task.loss(model, batch, order())[0] for weight, batch in parts)
    torch.testing.assert_close(total, task.loss(model, whole, order())[0])
    assert sum(len(batch) for _, batch in task.probe_batches(99, 4)) == 9


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context": 8}, "context=8: longer than the val split, which has 7 tokens"),
        ({"context": 0}, "context=0: must be 1 or more"),
        ({"batch_size": 10}, "batch_size=10: the training split has only 9 sequences of context=3"),
        ({"eval_batch_size": 0}, "eval_batch_size=0: must be"),
        ({"windows": "sliding"}, "windows=sliding: must be contiguous or random"),
        ({"stride": 4}, "stride=4: must lie between 1 and context=3"),
        ({"stride": 0}, "stride=0: must lie"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        task_of(LETTERS, Char(), **changes)


def test_a_loss_beyond_all_floats_is_infinite_perplexity() -> None:
    task = task_of(Corpus(["a a b\n"], ["a b\n"], ["b a\n"]), Word(1))
    table = torch.ones(4, 4)
    model = Bigrams(table)
    with torch.no_grad():
        model.table[:, 0] = 1e4
        metrics = task.evaluate(model, "val")
    assert metrics["loss"] == pytest.approx(1e4)
    assert metrics["perplexity"] == math.inf


# ---- gpt2, pretrained, question answering ---------------------------------------------------------------------------


def test_gpt2_loss_is_transformers_own() -> None:
    from vrbench.models.gpt2 import GPT2

    torch.manual_seed(0)
    text = "the quick brown fox jumps over the lazy dog and runs"
    task = task_of(Corpus([text * 3], [text], [text]), Char(), context=len(text) + 1)
    model = GPT2((len(text) + 2,), task.output_dim, "tiny", None, None, None, 0.1).eval()
    stream = task.streams["val"].long().unsqueeze(0)
    with torch.no_grad():
        theirs = float(model.network(input_ids=stream, labels=stream).loss)
        ours = task.evaluate(model, "val")
    assert ours["perplexity"] == pytest.approx(math.exp(theirs), rel=1e-5)
    assert float(task.loss(model, stream, order())[0]) == pytest.approx(theirs, rel=1e-6)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 and its byte-level tokenizer, saved as transformers does."""
    from tokenizers import Tokenizer as Pipeline
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("saved")
    pipeline = Pipeline(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=257, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    pipeline.train_from_iterator([], trainer)
    PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_positions=24, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


PAIRS = Pairs([("1+1=", "2"), ("2+3=", "five"), ("1+2=", "3")], [("2+2=", "44")], [("3+3=", "6")])


def asked(saved: Path, **changes: Any) -> QuestionAnswering:
    options: dict[str, Any] = {"batch_size": 2, "eval_batch_size": 2, "context": 16, "drop_long": False, "data": PAIRS}
    return QuestionAnswering(name="q", tokenizer=Pretrained(str(saved), None), **(options | changes))


def test_only_the_answer_is_scored(saved: Path) -> None:
    from vrbench.models.pretrained import Pretrained as PretrainedModel

    task = asked(saved)
    (weight, (tokens, targets)), *_ = task.probe_batches(1, 1)
    assert weight == 1.0
    spell = Pretrained(str(saved), None).fit([]).encode
    assert tokens.tolist() == [spell("1+1=2").ids[:-1]]
    assert targets.tolist() == [[IGNORED] * 3 + list(spell("2").ids)]

    model = PretrainedModel(task.input_shape, task.output_dim, str(saved), None).eval()
    full = torch.tensor([spell("2+2=44").ids])
    labels = full.clone()
    labels[:, :4] = IGNORED
    with torch.no_grad():
        theirs = float(model.network(input_ids=full, labels=labels).loss)
        metrics = task.evaluate(model, "val")
    assert metrics["loss"] == pytest.approx(theirs, rel=1e-5)


def test_padding_and_weights_change_nothing(saved: Path) -> None:
    from vrbench.models.pretrained import Pretrained as PretrainedModel

    task = asked(saved)
    model = PretrainedModel(task.input_shape, task.output_dim, str(saved), None).eval()
    with torch.no_grad():
        (_, whole), *_ = task.probe_batches(3, 3)
        assert whole[0].shape == (3, 8)
        parts = task.probe_batches(3, 1)
        assert [batch[0].shape[1] for _, batch in parts] == [5, 8, 5]
        assert [weight for weight, _ in parts] == [2 / 9, 5 / 9, 2 / 9]
        total = sum(weight * task.loss(model, batch, order())[0] for weight, batch in parts)
        torch.testing.assert_close(total, task.loss(model, whole, order())[0])


def test_exact_match_is_what_greedy_decoding_writes(saved: Path) -> None:
    from vrbench.models.pretrained import Pretrained as PretrainedModel

    task = asked(saved, batch_size=3, data=Pairs(PAIRS.train, PAIRS.train, PAIRS.test))
    model = PretrainedModel(task.input_shape, task.output_dim, str(saved), None)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = task.evaluate(model.eval(), "val")
    model.eval()  # no dropout: three answers are to be learned by heart
    for seed in range(80):
        for batch in task.train_batches(order(seed), order()):
            optimizer.zero_grad()
            task.loss(model, batch, order())[0].backward()
            optimizer.step()
    after = task.evaluate(model, "val")
    assert before["exact_match"] < 1
    assert after["loss"] < before["loss"]
    spell = Pretrained(str(saved), None).fit([]).encode
    exact = 0
    for prompt, completion in PAIRS.train:
        ids, answer = list(spell(prompt).ids[:-1]), list(spell(completion).ids)
        for _ in answer:
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        exact += ids[-len(answer) :] == answer
    assert after["exact_match"] == exact / 3
    assert exact == 3


def test_fine_tuning_refusals(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    from vrbench.models.pretrained import Pretrained as PretrainedModel

    with pytest.raises(ValueError, match=r"context=6: 1 of 3 train examples are longer; set task.context=8"):
        asked(saved, context=6)
    assert len(asked(saved, context=6, drop_long=True).tokens["train"]) == 2
    assert "1 of 3 train examples left out" in caplog.text
    with pytest.raises(ValueError, match="batch_size=4: the training split has 3 examples"):
        asked(saved, batch_size=4)
    with pytest.raises(ValueError, match=r"reads at most 24 tokens; set task.context=24"):
        PretrainedModel((25,), 257, str(saved), None)
    with pytest.raises(ValueError, match="knows 257 tokens, the task has 300"):
        PretrainedModel((8,), 300, str(saved), None)
    with pytest.raises(FileNotFoundError, match="path=openai-community/gpt2: no tokenizer can be loaded"):
        Pretrained("openai-community/gpt2", None)
    with pytest.raises(ValueError, match="path=null"):
        Pretrained(None, None)


# ---- the command line -----------------------------------------------------------------------------------------------


def summaries(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("default/*/summary.json")):
        yield json.loads(file.read_text())


@pytest.mark.slow
def test_pydoc_beats_its_unigram_baseline(vrbench: Call, tmp_path: Path) -> None:
    assert vrbench("task=pydoc", "optimizer=vradam", "logger=none", "trainer.max_steps=100") == 0
    (summary,) = summaries(tmp_path)
    assert summary["metrics"]["val/perplexity"] < 0.6 * summary["metrics"]["val/unigram_perplexity"]


def test_fine_tuning_from_the_command_line(vrbench: Call, tmp_path: Path, saved: Path) -> None:
    rows = [{"prompt": f"{number}+1=", "completion": str(number + 1)} for number in range(90)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    overrides = (f"task.data.path={tmp_path / 'pairs.jsonl'}", f"model.path={saved}", "task.context=8")
    assert vrbench("task=question_answering", "logger=none", "trainer.max_steps=3", *overrides) == 0
    (summary,) = summaries(tmp_path)
    assert summary["steps"] == 3
    assert summary["metrics"]["val/perplexity"] > 1


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["task=text"], "task.data.path=null: give a text file"),
        (["task=text", "task.data.path=absent.txt"], "task.data.path=absent.txt: no such file or folder"),
        (["task=pydoc", "task.context=1000000"], "task.context=1000000: longer than the train split"),
        (["task=pydoc", "task.tokenizer.vocab_size=9"], "task.tokenizer.vocab_size=9: must be 257 or more"),
        (["task=pydoc", "task/tokenizer=gpt2"], "task.tokenizer.path=openai-community/gpt2: no tokenizer can be"),
        (["task=pydoc", "model=mlp"], "model"),
        (["task=digits", "model=lstm"], "model.input_shape=(1, 8, 8): it takes token sequences"),
    ],
)
def test_wrong_choices_are_one_line(
    vrbench: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], says: str
) -> None:
    assert vrbench(*overrides, "logger=none") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vrbench: ")
    assert says in error
    assert not (tmp_path / "default").exists()
