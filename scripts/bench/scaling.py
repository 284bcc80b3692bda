"""How time and memory grow with runs, parameters, tensors, seeds, tokens and steps: `make bench-scaling`.

Each measure of each size runs in processes of its own: processor time, the least of a few calls where one is short, and
the most memory that it needs beyond what it was given. Commands count whole, from the start of their process. Between
two sizes stands the slope in log-log; a measure's growth is the slope over its last two sizes of what it costs more
than at its least size, so that a fixed cost is not in it: 1 is linear. Writes results/bench/scaling.json and .svg, in
which measures that are not taken anew (`--axes`, `--only`) stay as they are; each has its commit.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import timing
from scaling_axes import AXES, MEASURES, SET_UP

from vrbench.runs.records import git_state

LINEAR = 1.15
"""The growth up to which a cost is called at most linear."""
NOISE = {"seconds": (0.03, 0.01), "peak_mb": (0.05, 8.0)}
"""What two values of one size may differ by: a share of the least size's, and so much in the unit at least."""
SHORT = 5.0
"""Seconds up to which a measurement is taken three times."""
FLAT = 3
"""A cost that grows by less than so many times its noise over all sizes does not grow."""


def growth(sizes: Sequence[int], values: Sequence[float], share: float, least: float) -> float | None:
    """The slope in log-log over the last two sizes of what they cost more than the first; None where that is nothing.

    A growth from the first to the last but one that is less than the noise counts as the noise.
    """
    noise = max(share * values[0], least)
    if len(sizes) < 2 or values[-1] - values[0] < FLAT * noise:
        return None
    if len(sizes) == 2:
        return math.log(values[1] / max(values[0], noise)) / math.log(sizes[1] / sizes[0])
    more, before = values[-1] - values[0], max(values[-2] - values[0], noise)
    return math.log(more / before) / math.log((sizes[-1] - sizes[0]) / (sizes[-2] - sizes[0]))


def slopes(sizes: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """Between neighbouring sizes; None where a value is 0."""
    pairs = zip(zip(sizes, values, strict=True), zip(sizes[1:], values[1:], strict=True), strict=False)
    return [math.log(y / x) / math.log(n / m) if x > 0 and y > 0 else None for (m, x), (n, y) in pairs]


def summary(sizes: Sequence[int], found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Of one measure: its values, slopes and growth in time and memory, and whether each is at most linear."""
    told: dict[str, Any] = {"sizes": list(sizes)}
    for key, (share, least) in NOISE.items():
        values = [one[key] for one in found]
        grown = growth(sizes, values, share, least)
        told[key] = values
        told[f"{key}_slopes"], told[f"{key}_growth"] = slopes(sizes, values), grown
        told[f"{key}_at_most_linear"] = grown is None or grown <= LINEAR
    return told


def take(name: str, size: int, folder: Path, threads: int) -> dict[str, float]:
    """One measurement, in a process of its own. Raises RuntimeError, with its last lines, where that fails."""
    answer = folder / "answer.json"
    script = Path(__file__).with_name("scaling_axes.py")
    own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    own |= {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, str(script), name, str(size), str(folder), str(answer)]
    made = subprocess.run(words, cwd=timing.ROOT, env=os.environ | own, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{name} at {size}:\n" + "\n".join(made.stderr.splitlines()[-15:]))
    found: dict[str, float] = json.loads(answer.read_text())
    return found


def least(name: str, size: int, folder: Path, threads: int) -> dict[str, float]:
    """The least of three measurements, of one where it takes long: what else a machine does only adds."""
    taken = [take(name, size, folder, threads)]
    if taken[0]["seconds"] < SHORT:
        taken += [take(name, size, folder, threads) for _ in range(2)]
    return {key: min(one[key] for one in taken) for key in NOISE}


def along(axis: str, sizes: Sequence[int], threads: int, only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Every measure of an axis (or `only` these) at all sizes; one line each is printed."""
    names = [name for name, measure in MEASURES.items() if measure.axis == axis and (not only or name in only)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            if axis in SET_UP:
                SET_UP[axis](size, Path(folder))
            for name in names:
                found[name].append(least(name, size, Path(folder), threads))
    told = {name: {"axis": axis, **summary(sizes, values)} for name, values in found.items()}
    for name, one in told.items():
        print(line(name, one), flush=True)
    return told


def line(name: str, one: dict[str, Any]) -> str:
    """`runs  index, first  0.01 0.04 0.3 2.9 s  growth 0.98  3 3 12 96 MB  growth 0.95`."""
    parts = [f"{one['axis']:<10} {name:<29}"]
    for key, unit in (("seconds", "s"), ("peak_mb", "MB")):
        grown = one[f"{key}_growth"]
        mark = "" if one[f"{key}_at_most_linear"] else " WORSE THAN LINEAR"
        values = " ".join(f"{value:8.3g}" for value in one[key])
        parts.append(f"{values} {unit:<2} growth {'none' if grown is None else f'{grown:.2f}':>4}{mark}")
    return "  ".join(parts)


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Small multiples: time above memory for each axis, both log-log, with a grey line of slope 1."""
    from vrbench.report import style

    axes_of = list(dict.fromkeys(one["axis"] for one in results.values()))
    kinds = (("seconds", "seconds"), ("peak_mb", "MB"))
    with style.styled():
        figure, places = style.panels(2 * len(axes_of), across=2, height=2.7, width=9.5)
        for axis, (left, right) in zip(axes_of, zip(places[::2], places[1::2], strict=True), strict=True):
            own = {name: one for name, one in results.items() if one["axis"] == axis}
            for panel, (key, unit) in zip((left, right), kinds, strict=True):
                _panel(panel, own, key)
                panel.set(xlabel=axis, ylabel=unit)
            right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        style.save(figure, path, "svg")


def _panel(panel: Any, own: dict[str, dict[str, Any]], key: str) -> None:
    from vrbench.report import style

    least = NOISE[key][1] / 100
    for number, (name, one) in enumerate(own.items()):
        look = style.Look(number % len(style.COLORS), number // len(style.COLORS), number % len(style.MARKERS))
        values = [max(value, least) for value in one[key]]
        panel.plot(one["sizes"], values, label=name, marker=look.marker, **look.line)
    sizes = next(iter(own.values()))["sizes"]
    top = max(max(one[key]) for one in own.values())
    panel.plot(sizes, [max(top, least) * size / sizes[-1] for size in sizes], color="0.6", linewidth=1, zorder=0)
    panel.set(xscale="log", yscale="log", ylim=(least, None))


def chosen(axis: str, least: int, largest: int) -> list[int]:
    """The sizes of an axis between these. Raises ValueError where there are none."""
    sizes = [size for size in AXES[axis] if least <= size <= largest]
    if not sizes:
        raise ValueError(f"{axis}: has no size from {least} to {largest}, only {', '.join(map(str, AXES[axis]))}")
    return sizes


def worse(results: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """The measures that grow worse than linearly, in time or memory."""
    return [name for name, one in results if not all(one[f"{key}_at_most_linear"] for key in NOISE)]


def main() -> None:
    """Measure, print, draw, write."""
    parser = timing.parser(__doc__, "scaling.json", threads=1)
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--least", type=int, default=1, help="the least size")
    parser.add_argument("--largest", type=int, default=10**8, help="the largest size")
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=[], metavar="MEASURE", help="these alone")
    options = timing.parse(parser)
    sizes = {axis: chosen(axis, options.least, options.largest) for axis in options.axes}
    old = json.loads(options.output.read_bytes()) if options.output.exists() else {"results": {}}
    found = {name: {"git": old["git"], **one} for name, one in old["results"].items()}
    git = git_state(timing.ROOT, "results/bench")
    for axis in options.axes:
        found |= {
            name: {**one, "git": git} for name, one in along(axis, sizes[axis], options.threads, options.only).items()
        }
    results = {name: found[name] for name in MEASURES if name in found}
    print(f"worse than linear: {', '.join(worse(results.items())) or 'nothing'}")
    draw(results, options.output.with_suffix(".svg"))
    timing.write(options, {"linear_up_to": LINEAR, "results": results})


if __name__ == "__main__":
    main()
