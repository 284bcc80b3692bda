"""The pages are true: commands can be read, files are there, links lead somewhere, the reference is whole."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from vrbench.app import command_line, wandb_commands
from vrbench.app.main import COMMANDS
from vrbench.app.project import CONF

sys.path.append(str(ROOT / "scripts"))
import docs_reference

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = "conf|docs|optimizers|results|scripts|tasks|tests|vrbench"
GROUPS = ("task/tokenizer", "optimizer", "task", "model", "schedule", "probe", "logger")
OWN = ("mine", "my_rule", "onecycle_momentum")
"""Names that the pages give to parts of the reader's own."""
OWN_STUDIES = ("results/runs/", "results/rivals/")
PUT_IN = "put_in"
GENERATED = {group.replace("/", "_") for group in docs_reference.GROUPS}


def named(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda path: path.stem)


# ---- commands -------------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The words after `vrbench` of each one in code: in lines of code blocks, and in code within a line.

    `…` and `<what is put in>` become PUT_IN; of a command that is but named there is the name alone.
    """
    lines, inside = [], False
    for line in text.replace("\\\n", " ").splitlines():
        inside ^= line.startswith("```")
        lines += [line.strip()] if inside or line.startswith("    ") else re.findall(r"`([^`]+)`", line)
    for line in lines:
        for part in re.split(r" (?:·|&&|\||>) ", line):
            words = shlex.split(re.sub(r"<[^>]+>|…", PUT_IN, part), comments=True) if "vrbench" in part else []
            if words[:1] == ["vrbench-report"]:
                yield ["report", *words[1:]]
            elif words[:1] == ["vrbench"]:
                yield words[1:]


class Read(Exception):
    """A command of ours has read its words, and would now do what they say."""


def read(words: list[str], own: Path) -> None:
    """Raises what argparse, click or Hydra raise for words that vrbench cannot read; `own` is a config folder."""
    if not words or words[0] not in COMMANDS:
        read_run(words, own)
    elif words[0] == "report" and words[1:]:
        from vrbench.report.main import cli

        name, command, rest = cli.resolve_command(click.Context(cli), words[1:])
        assert command is not None
        if rest:
            command.make_context(name, rest)
    elif words[0] == "wandb" and words[1:]:
        assert words[1] in wandb_commands.COMMANDS, f"there is no vrbench wandb {words[1]}"
        if words[2:]:
            read_by_argparse(wandb_commands.COMMANDS[words[1]][0], words[2:])
    elif words[1:]:
        read_by_argparse(COMMANDS[words[0]], words[1:])


def read_by_argparse(module: str, words: list[str]) -> None:
    """Let a command read its words and stop it there."""
    main = importlib.import_module(module).main
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(argparse.ArgumentParser, name, and_no_more(getattr(argparse.ArgumentParser, name)))
        with pytest.raises(Read):
            main(words)


def and_no_more(parse: Callable[..., object]) -> Callable[..., None]:
    def parsed(*arguments: object) -> None:
        parse(*arguments)
        raise Read

    return parsed


def read_run(words: list[str], own: Path) -> None:
    """Compose the first run of what an ordinary command asks for."""
    folders = argparse.ArgumentParser(add_help=False)
    folders.add_argument("--config-dir")
    _, rest = folders.parse_known_args([word for word in words if word != PUT_IN])
    options = command_line.get_args_parser().parse_args(command_line.read(rest))
    parser, overrides = OverridesParser.create(), [f"hydra.searchpath=[file://{own}]"]
    for word in options.overrides:
        override = parser.parse_override(word)
        if override.is_sweep_override():
            word = f"{word.partition('=')[0]}={next(override.sweep_string_iterator())}"
        if not word.endswith(f"={PUT_IN}"):
            overrides.append(word)
    compose("config", overrides, return_hydra_config=True)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A config folder with the parts of the reader's own that the pages speak of; Hydra is as `vrbench` starts it."""
    folder = tmp_path_factory.mktemp("own")
    for group in GROUPS:
        example = next(path for path in sorted((CONF / group).glob("*.yaml")) if "_target_" in path.read_text())
        (folder / group).mkdir(parents=True, exist_ok=True)
        for name in OWN:
            (folder / group / f"{name}.yaml").write_text(example.read_text())
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield folder


def unread(text: str, own: Path) -> list[str]:
    """The commands in a text that vrbench cannot read, each with what it says."""
    wrong = []
    for words in commands(text):
        try:
            read(words, own)
        except (Exception, SystemExit) as error:
            wrong.append(f"vrbench {' '.join(words)}: {error}")
    return wrong


@named(PAGES)
def test_every_command_of_a_page_can_be_read(page: Path, own: Path) -> None:
    assert unread(page.read_text(encoding="utf-8"), own) == []


@pytest.mark.parametrize(
    "line",
    [
        "`vrbench optimizer=no_such`",
        "    vrbench -m optimizer=vradam,adamw optimizer.no_such=1   # a sweep",
        "    vrbench task=digits \\\n        no.such=1",
        "```bash\nvrbench no_such\n```",
        "`vrbench report compare a b results --no-such`",
        "`vrbench report no_such`",
        "`vrbench study plan.yaml --no-such`",
        "`vrbench wandb no_such`",
        "`vrbench-report table`: `vrbench-report table x --format no_such`",
    ],
)
def test_a_command_that_cannot_be_read_is_found(line: str, own: Path) -> None:
    assert len(unread(line, own)) == 1


def test_commands_are_found_where_they_stand() -> None:
    text = "`vrbench a=1`, `vrbench list tasks` · x\n\n    vrbench b=… > f  # c\n    vrbench --help · vrbench d=<e>\n"
    found = [["a=1"], ["list", "tasks"], [f"b={PUT_IN}"], ["--help"], [f"d={PUT_IN}"]]
    assert list(commands(text)) == found
    assert sum(len(list(commands(page.read_text(encoding="utf-8")))) for page in PAGES) > 120


# ---- files and links ------------------------------------------------------------------------------------------------


def files(text: str) -> set[str]:
    """What looks like a path of the repository: from one of its folders, with an ending or a slash at the end."""
    found = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./*-]*(?:\.\w+|/))(?=[`\s,:;)(&|'\"]|$)", text, re.MULTILINE)
    return {path for path in found if not path.startswith(OWN_STUDIES)}


@named(PAGES)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    code = re.findall(r"`[^`\n]+`|^(?: {4}).*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert (
        sorted(
            path
            for path in files("\n".join(code))
            if not any(name in path for name in OWN) and not any(ROOT.glob(path))
        )
        == []
    )


def test_files_are_found_where_they_stand() -> None:
    text = "`vrbench/app/no.py` conf/task/ `tests/a/test_*.py:3` results/runs/x.json /conf/a.yaml conf/<b>.yaml"
    assert files(text) == {"vrbench/app/no.py", "conf/task/", "tests/a/test_*.py"}


@named([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("results/*/README.md"))])
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    """Those of docs/ are checked where the site is made (`make docs`)."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if not target.startswith("http"):
            assert (page.parent / path).exists(), target
            text = (page.parent / path).read_text(encoding="utf-8") if anchor else ""
            headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


def test_the_explained_verdict_is_the_committed_one() -> None:
    tables = (ROOT / "results/digits_control/tables.md").read_text(encoding="utf-8")
    quoted = re.findall(
        r"^(?:> (.*)|(\| .*digits.*))$", (ROOT / "docs/verdict.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(quoted) == 6
    assert [line for line in map("".join, quoted) if line not in tables] == []


# ---- the reference --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The generated pages by name, as the script writes them."""
    folder = tmp_path_factory.mktemp("reference")
    run = subprocess.run(
        [sys.executable, "scripts/docs_reference.py", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_every_yaml_is_in_the_reference_once(reference: dict[str, str]) -> None:
    """All of its lines but its comment; conf/config.yaml and multirun.yaml are no choices."""
    shown = "\n".join(reference.values())
    sections = [f"## {path.relative_to(CONF / group).with_suffix('').as_posix()}" for path, group in yamls()]
    headings = [line for name, text in reference.items() if name[:-3] in GENERATED for line in text.splitlines()]
    assert sorted(line for line in headings if line.startswith("## ")) == sorted(sections)
    for path, _ in yamls():
        body = re.sub(r"\A(#.*\n)*", "", path.read_text(encoding="utf-8"))
        assert f"```yaml\n{body}```" in shown, path


def yamls() -> Iterator[tuple[Path, str]]:
    """Every YAML of a group, with the innermost group that it is in."""
    groups = sorted(docs_reference.GROUPS, key=len, reverse=True)
    for path in CONF.rglob("*.yaml"):
        if path.parent != CONF:
            yield path, next(group for group in groups if path.is_relative_to(CONF / group))


def test_a_yaml_s_section_says_what_its_comment_says_and_its_sources(reference: dict[str, str]) -> None:
    section = reference["optimizer.md"].partition("## soap\n")[2].partition("\n## ")[0]
    said = "SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's preconditioner."
    source = "Sources: [2409.11321](sources.md#240911321) ([arXiv](https://arxiv.org/abs/2409.11321))"
    assert section.startswith(
        f"\n`optimizer=soap`\n\n{said}\n\n{source}\n\n```yaml\n_target_: pytorch_optimizer.SOAP\n"
    )
    assert "## 2409.11321\n" in reference["sources.md"]


def test_every_public_name_is_in_the_reference_with_its_docstring(reference: dict[str, str]) -> None:
    import vrbench
    from vrbench import contracts

    page = reference["python.md"]
    own = [
        value
        for name, value in vars(contracts).items()
        if inspect.isclass(value) and value.__module__ == contracts.__name__
    ]
    assert len(own) > 10
    for value in own:
        if not value.__name__.startswith("_"):
            first = str(inspect.getdoc(value)).partition("\n")[0]
            assert f"\n### {value.__name__}\n" in page
            assert first in page
    for name in vrbench.__all__:
        assert f"\n### {name}\n" in page
    assert "vrbench.load(*paths: str" in page
    assert "`metrics(" in page  # of Runs, which vrbench takes from elsewhere
    assert "class vrbench.optimizers.VRAdam(params: ParamsT, lr: float | Tensor = 0.001" in page
    assert "- `beta3`: velocity penalty, at least 0; 0 is AdamW" in page
    assert "`loss(model: nn.Module, batch: Batch, generator: Generator)" in page


# ---- the site -------------------------------------------------------------------------------------------------------

LINKS = """# Links

[a page](statistics.md#the-verdict) [a folder](../results) [a file](../vrbench/contracts.py)
[a text](../CONTRIBUTING.md)

[1](nowhere.md) [2](statistics.md#nowhere) [3](../vrbench/nowhere.py) [4](../results/nowhere) ![5](images/nowhere.svg)
"""


@pytest.mark.slow
def test_the_site_is_whole_and_says_which_links_are_broken(tmp_path: Path) -> None:
    """Made of a copy of docs/ beside the rest of the repository, with one page more: its warnings are the only ones."""
    for path in ROOT.iterdir():
        if path.name not in ("docs", "site", ".git"):
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("reference"))
    (tmp_path / "docs/links.md").write_text(LINKS, encoding="utf-8")
    index = tmp_path / "docs/index.md"
    index.write_text(
        index.read_text(encoding="utf-8").replace("\nfirst_study\n", "\nfirst_study\nlinks\n"), encoding="utf-8"
    )
    make = [sys.executable, "-m", "sphinx", "-q", "--fail-on-warning", "--keep-going", "-b", "html", "docs", "site"]
    made = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 1, made.stderr
    warnings = [line for line in made.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 5, made.stderr
    assert all("docs/links.md" in line and "nowhere" in line for line in warnings)
    page = (tmp_path / "site/links.html").read_text(encoding="utf-8")
    assert 'href="statistics.html#the-verdict"' in page
    assert " a folder <" in page
    assert re.search(r'href="_downloads/\w+/contracts\.py"', page)
    assert re.search(r'href="_downloads/\w+/CONTRIBUTING\.md"', page)
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in tmp_path.glob("site/**/*.html")}
    assert {f"reference/{group}.html" for group in GENERATED} < pages
    for name in pages:
        loaded = re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(\w+:)?//', (tmp_path / "site" / name).read_text())
        assert loaded == [], name
