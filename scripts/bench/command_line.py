"""Seconds of the commands around training: their start, the records of many runs, data in many files.

Processor time of processes of their own, the least of a few where it is short; the first of `index` and `table` find no
index, the second find the one that the first has written. `data` is the content hash of a folder, first read and then
remembered, in wall seconds of this process. Writes results/bench/command_line.json.
"""

from __future__ import annotations

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


def cpu_seconds(script: str, *arguments: str) -> float:
    """Processor time of a Python process that runs a script. Raises CalledProcessError where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=timing.ROOT, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


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
    parser.add_argument("--files", type=int, default=50_000, help="files of data")
    options = timing.parse(parser)
    results: dict[str, object] = {}
    for arguments in (["--help"], ["--cfg", "job"]):
        results[f"vrbench {' '.join(arguments)}"] = min(cpu_seconds(START, *arguments) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        runs, data = Path(folder) / "runs", Path(folder) / "data"
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        many_runs(runs, options.runs)
        results[f"index of {options.runs} runs"] = [cpu_seconds(INDEX, str(runs)) for _ in range(2)]
        (runs / "index.jsonl").unlink()
        table = ("table", str(runs), "--format", "csv")
        results[f"table of {options.runs} runs"] = [cpu_seconds(TABLE, *table) for _ in range(2)]
        many_files(data, options.files)
        results[f"data in {options.files} files"] = [timing.timed(lambda: content_hash(data))[1] for _ in range(2)]
    for name, seconds in results.items():
        print(name, seconds)
    timing.write(options, {"seconds": results})


if __name__ == "__main__":
    main()
