"""The pages of the site that nobody writes: every YAML of conf/, their sources, the public Python, the changelog.

    python scripts/docs_reference.py docs/reference

`make docs` calls it through docs/conf.py. What it writes is not in git.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import docs_python

from vrbench.app.cite import bibliography, cited
from vrbench.app.listing import described

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "optimizer": "Optimizers",
    "task": "Tasks",
    "model": "Models",
    "schedule": "Schedules",
    "probe": "Probes",
    "logger": "Loggers",
    "task/tokenizer": "Tokenizers",
    "trainer": "The trainer",
    "sweep": "Searches",
    "sweep/space": "Search spaces",
    "hydra/sweeper": "Sweepers",
    "hydra/launcher": "Launchers",
    "experiment": "Experiments",
}
"""Config groups, with the titles of their pages."""
_ARXIV = re.compile(r"\d{4}\.\d{4,5}")


def pages() -> dict[str, str]:
    """The generated pages, in MyST Markdown, by their path below docs/reference/."""
    written = {f"{group.replace('/', '_')}.md": group_page(group) for group in GROUPS}
    written["sources.md"] = sources_page()
    written["python.md"] = docs_python.page(ROOT)
    written["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return written


def group_page(group: str) -> str:
    """One section for each YAML of a config group: how it is chosen, its comment, its sources, and the YAML itself."""
    parts = [f"# {GROUPS[group]}", f"Every YAML of `conf/{group}/`, as it stands there."]
    nested = {other for other in GROUPS if other.startswith(f"{group}/")}
    for path in sorted((ROOT / "conf" / group).rglob("*.yaml")):
        name = path.relative_to(ROOT / "conf" / group).with_suffix("").as_posix()
        if not any(f"{group}/{name}".startswith(f"{other}/") for other in nested):
            parts += yaml_section(path, name, "" if group == "sweep/space" else f"`{group}={name}`")
    return "\n\n".join(parts) + "\n"


def yaml_section(path: Path, name: str, chosen: str) -> list[str]:
    """Heading, comment and sources of a YAML as Markdown, then its text without the comment at its head."""
    said = described(path)
    comment = " ".join(filter(None, [said.rule, said.notes]))
    keys = [key for key in cited(path) if not key.startswith("(")]
    lines = path.read_text(encoding="utf-8").splitlines()
    body = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    told = [f"## {name}", chosen, _prose(comment), f"Sources: {', '.join(map(_source, keys))}" if keys else ""]
    return [*filter(None, told), "\n".join(["```yaml", *lines[body:], "```"])]


def _prose(comment: str) -> str:
    """A comment as Markdown: no markup but code, and pages of docs/ as links."""
    escaped = re.sub(r"([<*\[])", r"\\\1", comment)
    return re.sub(r"\bdocs/(\w+)\.md", r"[\1](../\1.md)", escaped)


def _source(key: str) -> str:
    arxiv = f" ([arXiv](https://arxiv.org/abs/{key}))" if _ARXIV.fullmatch(key) else ""
    return f"[{key}](sources.md#{anchor(key)}){arxiv}"


def anchor(heading: str) -> str:
    """The anchor that a heading of one word gets."""
    return re.sub(r"[^\w-]", "", heading.lower())


def sources_page() -> str:
    """The bibliography that `vrbench cite` prints from."""
    parts = ["# Sources", "What `vrbench cite` prints from."]
    for key, entry in bibliography().items():
        parts += [f"## {key}", f"```bibtex\n{entry}\n```"]
    return "\n\n".join(parts) + "\n"


def write(folder: Path) -> None:
    """Write the pages into a folder, which is made; files that are up to date keep their time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
