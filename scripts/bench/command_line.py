"""Seconds of the commands around training: their start, the records of many runs, data in many files.

Processor time of processes of their own, the least of a few where it is short. `a run` trains the digits for one step:
all but start and end; its bar is `BAR` seconds. `a further run` is what each run of a multirun adds to it, of which
`its training` is what the run itself books. `import torch` is what none of them can be below. The first of `index` and
`table` find no index, the second find the one that the first has written. `data` is the content hash of a folder, first
read and then remembered, in wall seconds of this process. Writes results/bench/command_line.json.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import timing
from many_runs import START, many_runs

from vrbench.runs.content import content_hash

INDEX = "import sys; from pathlib import Path; from vrbench.runs.index import read_index; read_index(Path(sys.argv[1]))"
TABLE = "from vrbench.report.main import main; main()"
RUN = ("task=digits", "trainer.max_steps=1", "logger=none")
BAR = 3.0
"""Seconds that such a run may take: what is imported is needed."""


def cpu_seconds(script: str, *arguments: str) -> float:
    """Processor time of a Python process that runs a script. Raises CalledProcessError where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=timing.ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def runs(number: int) -> dict[str, float]:
    """Processor time of a multirun of so many runs, and the wall seconds that a run books itself, on the mean."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = "seed=" + ",".join(map(str, range(number)))
        took = cpu_seconds(START, "-m", seeds, f"results_dir={folder}", *RUN)
        summaries = [json.loads(path.read_text()) for path in Path(folder).glob("*/*/summary.json")]
    if len(summaries) != number:
        raise ValueError(f"runs: {len(summaries)} of {number} have a summary")
    return {"process": took, "booked": sum(sum(one["seconds"].values()) for one in summaries) / number}


def start_up(number: int, rounds: int) -> dict[str, float]:
    """A run, a further one in a multirun of `number`, and what both stand on: each of the least of so many rounds."""
    single, one, many, torch = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            single.append(cpu_seconds(START, f"results_dir={folder}", *RUN))
        one.append(runs(1)["process"])
        many.append(runs(number))
        torch.append(cpu_seconds("import torch"))
    further = (min(taken["process"] for taken in many) - min(one)) / (number - 1)
    booked = min(taken["booked"] for taken in many)
    return {"a run": min(single), "a further run": further, "its training": booked, "import torch": min(torch)}


def many_files(root: Path, number: int) -> None:
    """So many files of one or two kilobytes in folders of 500."""
    for place in range(number):
        folder = root / str(place // 500)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.bin").write_bytes(b"%d" % place * 300)


def main() -> None:
    """Measure, print, write."""
    parser = timing.parser(__doc__, "command_line.json", threads=1)
    parser.add_argument("--runs", type=int, default=10_000, help="run folders")
    parser.add_argument("--multirun", type=int, default=4, help="runs of the multirun, 2 or more")
    parser.add_argument("--rounds", type=int, default=5, help="how often a run and a multirun start")
    parser.add_argument("--files", type=int, default=50_000, help="files of data")
    options = timing.parse(parser)
    results: dict[str, object] = {}
    for arguments in (["--help"], ["--cfg", "job"]):
        results[f"vrbench {' '.join(arguments)}"] = min(cpu_seconds(START, *arguments) for _ in range(3))
    start = start_up(options.multirun, options.rounds)
    results |= start
    with tempfile.TemporaryDirectory() as folder:
        records, data = Path(folder) / "runs", Path(folder) / "data"
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        many_runs(records, options.runs)
        results[f"index of {options.runs} runs"] = [cpu_seconds(INDEX, str(records)) for _ in range(2)]
        (records / "index.jsonl").unlink()
        table = ("table", str(records), "--format", "csv")
        results[f"table of {options.runs} runs"] = [cpu_seconds(TABLE, *table) for _ in range(2)]
        many_files(data, options.files)
        results[f"data in {options.files} files"] = [timing.timed(lambda: content_hash(data))[1] for _ in range(2)]
    for name, seconds in results.items():
        print(name, seconds)
    taken = timing.ratio([start["a run"]], [1.0])
    figure = timing.figure("a run of one step, seconds of processor time", {"at_most": BAR}, taken)
    print(timing.line(figure))
    timing.write(options, {"seconds": results, "figures": [figure]})


if __name__ == "__main__":
    main()
