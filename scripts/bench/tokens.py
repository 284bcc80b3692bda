"""Text larger than memory: `make bench`. Writes results/bench/tokens.json.

Made-up documents in parquet files, as the hub lays them out, are tokenized into memory-mapped files as a run does it
first of all: by a process of its own, which tells its largest memory and that of the processes it started. Beside it
stands a bare loop of the `tokenizers` library over the same documents in memory, shared out to as many processes. Then
batches of `task=fineweb_edu` are read from the map and from a copy in memory, in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timing

WORDS = 20_000
ROWS_A_FILE = 20_000
READING_BAR = {"at_least": 0.98}
PEAK_BAR = {"at_most": 1.0}
SIZES = {"context": 1024, "batch_size": 16}


def texts(number: int, count: int) -> list[str]:
    """Documents of 50 to 950 made-up words whose frequencies fall as Zipf's; another `number` gives others."""
    chance = np.random.default_rng(number)
    spelled = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    words = np.array(["".join(spelled.choice(letters, length)) for length in spelled.integers(2, 10, WORDS)])
    rank = 1 / np.arange(1, WORDS + 1)
    lengths = chance.integers(50, 951, count)
    drawn = words[chance.choice(WORDS, lengths.sum(), p=rank / rank.sum())]
    drawn[chance.random(len(drawn)) < 0.08] = "end.\n"
    return [" ".join(some).replace("\n ", "\n") for some in np.split(drawn, np.cumsum(lengths)[:-1])]


def write_files(folder: Path, megabytes: int) -> int:
    """Parquet files with that much text; their characters."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    written = number = 0
    while written < megabytes * 1e6:
        some = texts(number, ROWS_A_FILE)
        pyarrow.parquet.write_table(pyarrow.table({"text": some}), folder / f"train-{number:05}.parquet")
        written += sum(map(len, some))
        number += 1
    return written


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A byte-level BPE tokenizer as transformers saves it, learned from some of the documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pipeline = Tokenizer(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pipeline.train_from_iterator(texts(0, 4000), trainer)
    PreTrainedTokenizerFast(tokenizer_object=pipeline, eos_token="<|endoftext|>").save_pretrained(folder)


TOKENIZE = """
import json, resource, sys, time
from vrbench.data import text, tokens
from vrbench.data.tokenization import Pretrained

def main():
    began = time.perf_counter()
    corpus = text.documents(sys.argv[1], None, None, "text", 0.0005, 0.0005)
    streams = tokens.tokenize(corpus, Pretrained(sys.argv[2], None))
    took = time.perf_counter() - began
    peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    tokens_made = sum(len(ids) - 1 for ids in streams.ids.values())
    print(json.dumps({"seconds": took, "peak_bytes": peaks, "tokens": tokens_made}))

if __name__ == "__main__":
    main()
"""


def tokenize(data: Path, tokenizer: Path, cache: Path) -> dict[str, Any]:
    """What a run that meets the text first does, in a process of its own."""
    import json

    around = {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")}
    command = [sys.executable, "-c", TOKENIZE, str(data), str(tokenizer)]
    said = subprocess.run(command, env=around, cwd=timing.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def bare(arguments: tuple[str, str]) -> tuple[int, float]:
    """One process's share of a bare loop: tokens made of one file's documents, and the seconds it took."""
    import pyarrow.parquet
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    file, tokenizer = arguments
    pipeline = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    documents = pyarrow.parquet.read_table(file).column("text").to_pylist()
    began = time.perf_counter()
    tokens = 0
    for begin in range(0, len(documents), 1000):
        encodings = pipeline.encode_batch_fast(documents[begin : begin + 1000], add_special_tokens=False)
        tokens += sum(len(encoding.ids) for encoding in encodings)
    return tokens, time.perf_counter() - began


def bare_seconds(data: Path, tokenizer: Path, processes: int) -> tuple[int, float]:
    """Tokens, and the seconds of tokenizing alone where the processes share it evenly."""
    from joblib import Parallel, delayed

    files = sorted(map(str, data.glob("*.parquet")))
    found = Parallel(n_jobs=processes)(delayed(bare)((file, str(tokenizer))) for file in files)
    return sum(tokens for tokens, _ in found), sum(seconds for _, seconds in found) / processes


def batches(stream: Any) -> Iterator[Any]:
    """Training batches of `task=fineweb_edu`, without end."""
    import torch
    from vrbench.tasks.language_modeling import LanguageModeling

    task = LanguageModeling.__new__(LanguageModeling)
    task.context, task.batch_size, task.windows = SIZES["context"], SIZES["batch_size"], "random"
    task.device, task.streams = torch.device("cpu"), {"train": stream}
    task.sequences = (len(stream) - 1) // task.context
    task.batches_per_epoch = task.sequences // task.batch_size
    epoch = 0
    while True:
        generator = torch.Generator().manual_seed(epoch)
        yield from task.train_batches(generator, generator)
        epoch += 1


def main() -> None:
    """Measure, print, write."""
    parser = timing.parser(__doc__, "tokens.json", threads=2)
    parser.add_argument("--megabytes", type=int, default=2000, help="how much text is made up")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=60, help="rounds of 50 batches from the map and from memory")
    parser.add_argument("--folder", type=Path, help="where the text is made (default: a temporary folder)")
    options = timing.parse(parser)
    import joblib
    import torch

    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        data, tokenizer, cache = (Path(place) / name for name in ("data", "tokenizer", "cache"))
        characters = write_files(data, options.megabytes)
        write_tokenizer(tokenizer, options.vocab_size)
        ours = tokenize(data, tokenizer, cache)
        again = tokenize(data, tokenizer, cache)
        processes = joblib.cpu_count()
        bare_tokens, bare_took = bare_seconds(data, tokenizer, processes)
        (file,) = (cache / "vrbench").glob("tokens-*/train.bin")
        mapped = torch.from_numpy(np.memmap(file, np.uint16, mode="c"))
        sides = {"mapped": batches(mapped), "in memory": batches(mapped.clone())}
        calls = {name: (lambda some=some: [next(some) for _ in range(50)]) for name, some in sides.items()}
        taken = timing.in_turns(calls, options.rounds, swap=True)
    separators = ours["tokens"] - bare_tokens
    results = {
        "megabytes": characters / 1e6,
        "processes": processes,
        "tokens": ours["tokens"],
        "separators": separators,
        "seconds": ours["seconds"],
        "megabytes_per_second": characters / 1e6 / ours["seconds"],
        "bare_megabytes_per_second": characters / 1e6 / bare_took,
        "of_bare": bare_took / ours["seconds"],
        "peak_megabytes": ours["peak_bytes"][0] / 1e6,
        "peak_megabytes_of_a_worker": ours["peak_bytes"][1] / 1e6,
        "seconds_when_cached": again["seconds"],
        "reading": timing.ratio(taken["in memory"], taken["mapped"]),
    }
    for name, value in results.items():
        print(f"{name:32s} {value}")
    figures = [timing.figure("reading batches, mapped over in memory", READING_BAR, results["reading"])]
    figures.append(
        timing.figure("tokenizing, its rate over a bare loop's", None, timing.ratio([bare_took], [ours["seconds"]]))
    )
    peak = timing.ratio([max(ours["peak_bytes"])], [1.5e9])
    figures.append(timing.figure("tokenizing, peak memory over 1.5 GB", PEAK_BAR, peak))
    for one in figures:
        print(timing.line(one))
    timing.write(options, {"results": results, "figures": figures})


if __name__ == "__main__":
    main()
