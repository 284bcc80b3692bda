"""`vrbench cite`: BibTeX of what a study used, or of one YAML.

    vrbench cite results/runs/my_study > references.bib
    vrbench cite optimizer=soap task=cifar10

A study's folder, a run's, a results root and a folder of published records are all read. Sources are the `# cite:`
lines of the YAMLs that the runs chose, and those of the methods that a report on them uses: its tests, intervals and
searches. The entries are in references.bib beside this file; an arXiv id that it lacks gets an entry of that id alone.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vrbench import terminal
from vrbench.app.project import CONF, config_dirs
from vrbench.app.refusals import offer, say
from vrbench.report.looks import Looks
from vrbench.runs import archive
from vrbench.runs.index import Row, read_index

GROUPS = ("optimizer", "task", "model", "schedule", "probe")
"""Config groups whose YAMLs a run's manifest names."""
ALWAYS = {"vrbench": "vrbench", "torch": "1912.01703"}
"""What every run uses."""
SAMPLERS = {"random": "bergstra2012", "tpe": "bergstra2011"}
PRUNERS = {"hyperband": "1603.06560"}
TESTS = {"sign-flip": ("fisher1935",), "t": ("student1908",), "e-process": ("2208.08925", "2210.01948")}
INTERVALS = {"seed": "efron1993", "replicate": "student1908"}
"""By unit of a comparison, the interval of its difference: the studentised bootstrap, Student's."""

ELSEWHERE = "(its YAML is not here: --config-dir names its folder)"

_CITE = re.compile(r"^# cite: (.+)$", re.MULTILINE)
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")

Use = tuple[str, str]
"""What was used, and the key of a source; or, where it has none, the reason in brackets."""


def cited(path: Path) -> list[str]:
    """The keys in the `# cite:` line of a YAML, or why there is none: `["(a plain network)"]`."""
    found = _CITE.search(path.read_text(encoding="utf-8"))
    if found is None:
        return ["(its YAML names none)"]
    if found[1].startswith("none"):
        return [found[1].removeprefix("none").strip() or "(none)"]
    return [key.strip() for key in found[1].split(",")]


@cache
def bibliography() -> dict[str, str]:
    """The entries of references.bib, as they stand there, by key."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    return {entry.partition("{")[2].partition(",")[0]: entry.strip() for entry in text.split("\n\n")}


def entry(key: str) -> str:
    """The BibTeX entry of a key. Raises ValueError for one that is neither in references.bib nor an arXiv id."""
    if key in bibliography():
        return bibliography()[key]
    if not _ARXIV.fullmatch(key):
        raise ValueError(f"{key}: must be an arXiv id (2505.13196) or a key of references.bib")
    return f"@misc{{{key},\n  title = {{arXiv:{key}}},\n  eprint = {{{key}}},\n  archiveprefix = {{arXiv}}\n}}"


def bibtex(used: Iterable[Use]) -> str:
    """An entry for each source, below a line that says what it is the source of; what has none comes last.

    Raises ValueError as `entry` does.
    """
    users: dict[str, list[str]] = {}
    for what, key in dict.fromkeys(used):
        users.setdefault(key, []).append(what)
    parts = [f"% {', '.join(what)}\n{entry(key)}" for key, what in users.items() if not key.startswith("(")]
    bare = [f"{one} {key}" for key, what in users.items() if key.startswith("(") for one in what]
    return "\n\n".join([*parts, *([f"% without a source: {', '.join(bare)}"] if bare else [])])


def of_yaml(group: str, name: str, folders: Sequence[Path]) -> list[Use]:
    """The sources of a part, from the first config folder that has its YAML; none where there is no such YAML."""
    for folder in folders:
        if (path := folder / group / f"{name}.yaml").is_file():
            return [(f"{group}={name}", key) for key in cited(path)]
    return []


def asked_for(word: str, folders: Sequence[Path]) -> list[Use]:
    """The sources of a part that is named as `group=name`. Raises ValueError where no config folder has its YAML."""
    group, _, name = word.partition("=")
    if found := of_yaml(group, name, folders):
        return found
    names = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
    raise ValueError(f"{word}: no such YAML; {offer(name, names, group)}")


def of_study(study: Path, folders: Sequence[Path]) -> Iterator[Use]:
    """The sources of vrbench itself, of what a study's runs chose, and of the methods of a report on them.

    Raises FileNotFoundError where there is no such folder, ValueError for records that cannot be read.
    """
    if (study / archive.FILE).is_file():
        with tempfile.TemporaryDirectory() as temporary:
            unpacked = Path(temporary).resolve() / study.resolve().name
            archive.unpack(study / archive.FILE, unpacked)
            yield from of_study(unpacked, folders)
        return
    rows = read_index(study)
    if not rows:
        raise ValueError(f"{study}: has no runs")
    yield from ALWAYS.items()
    for group in GROUPS:
        for name in sorted({str(row[group]) for row in rows if group in row}):
            yield from of_yaml(group, name, folders) or [(f"{group}={name}", ELSEWHERE)]
    yield from _of_tokenizers(rows, folders)
    yield from _of_searches(study)
    yield from _of_verdicts(study)


def _of_tokenizers(rows: Iterable[Row], folders: Sequence[Path]) -> Iterator[Use]:
    """Those of the tokenizers' YAMLs that make what the runs had: a manifest does not name them."""
    from omegaconf import OmegaConf

    had = {(row.get("task.tokenizer._target_"), row.get("task.tokenizer.path")) for row in rows}
    for path in sorted(path for folder in folders for path in (folder / "task/tokenizer").glob("*.yaml")):
        node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if (node["_target_"], node.get("path")) in had:
            yield from (("tokenizer", key) for key in cited(path))


def _of_searches(study: Path) -> Iterator[Use]:
    found = [json.loads(path.read_bytes())["settings"] for path in study.glob("**/search/*/trials.json")]
    if found:
        yield "search", "1907.10902"
        yield "expected best after k trials", "1909.03004"
    for what, keys in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        for chosen in sorted({str(settings.get(what)) for settings in found} & keys.keys()):
            yield f"{what}={chosen}", keys[chosen]


class _Unnoted(Looks):
    """The looks of a study, to which this one is not added: no verdict is shown."""

    def record(self, *_: object) -> None:
        pass


def _of_verdicts(study: Path) -> Iterator[Use]:
    from vrbench.report.collect import collect
    from vrbench.report.figures import MOST_ARMS
    from vrbench.report.rivals import rivals

    for rival in rivals(collect([study], today=False), MOST_ARMS, _Unnoted()):
        judged = [one for one in rival.found if one.judged and one.pairs.units]
        for one in judged:
            yield from ((f"{one.verdict.test} test", key) for key in TESTS[one.verdict.test])
            yield "interval of a difference", INTERVALS[one.pairs.unit]
            yield "better, equivalent, worse: probabilities", "1606.04316"
            if one.verdict.tests > 1:
                yield "correction for several tests", "holm1979"
        if len(judged) > 1:
            yield "interquartile mean over tasks", "2108.13264"


@terminal.output()
def main(words: Sequence[str]) -> int:
    """Answer `vrbench cite` with these words after it; the exit code: 2 for what is not there, else 0."""
    parser = argparse.ArgumentParser(
        prog="vrbench cite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="a config folder of your own")
    parser.add_argument("what", nargs="*", metavar="STUDY or group=name", help="none: vrbench itself")
    options = parser.parse_args(words)
    used: list[Use] = [] if options.what else list(ALWAYS.items())
    try:
        folders = [*config_dirs(options.config_dir), CONF]
        for word in options.what:
            named = "=" in word and not Path(word).exists()
            used += asked_for(word, folders) if named else of_study(Path(word), folders)
        print(bibtex(used))
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return say(f"cite: {error}", 2)
    return 0
