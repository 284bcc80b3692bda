"""The command `vrbench-report`: tables, comparisons, figures and pages from run folders. It never trains."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from vrbench.report.arms import Arm, collect

FORMATS = ("markdown", "latex", "csv", "json")
INTERVALS = ("bootstrap-t", "bca", "t")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
def cli() -> None:
    """Read run folders, studies or whole results roots, and say what they show."""


def _paths(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))(command)


def _output(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--output", "-o", type=click.Path(path_type=Path), default=default, show_default=True)


def _statistics(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--format", "form", type=click.Choice(FORMATS), default="markdown", show_default=True),
        click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True),
        click.option(
            "--smallest-effect",
            default="1%",
            show_default=True,
            help="The smallest difference that matters: a share of B's mean, or a number in the metric's unit.",
        ),
        click.option("--interval", type=click.Choice(INTERVALS), default="bootstrap-t", show_default=True),
        click.option("--tuning", is_flag=True, help="The trials of searches too."),
        click.option(
            "--allow",
            metavar="KEY[,KEY…]",
            default="",
            callback=lambda context, option, value: tuple(filter(None, value.split(","))),
            help="Keys that may differ between what is compared, and all below them.",
        ),
    ):
        command = option(command)
    return command


def _collect(paths: Sequence[Path], *, tuning: bool = False) -> list[Arm]:
    arms = collect(paths, tuning=tuning)
    if not arms:
        raise ValueError(f"{' '.join(map(str, paths))}: no run that is over")
    return arms


@cli.command()
@_paths
@_statistics
@click.option("--baseline", help="An optimizer or label: adds difference, p and verdict against it.")
def table(
    paths: tuple[Path, ...],
    form: str,
    split: str,
    smallest_effect: str,
    interval: str,
    tuning: bool,
    allow: tuple[str, ...],
    baseline: str | None,
) -> None:
    """One row for each configuration, over its seeds."""
    from vrbench.report import formats, tables
    from vrbench.report.comparable import check_names
    from vrbench.report.compare import Smallest

    smallest = Smallest.parse(smallest_effect)
    if allow and baseline is None:
        raise ValueError(f"allow={','.join(allow)}: nothing is compared without --baseline")
    arms = _collect(paths, tuning=tuning)
    check_names(allow, arms)
    made = tables.summary(arms, split=split, baseline=baseline, smallest=smallest, interval=interval, allow=allow)
    click.echo(formats.FORMATS[form](made), nl=False)


@cli.command()
@click.argument("a")
@click.argument("b")
@_paths
@_statistics
def compare(
    a: str,
    b: str,
    paths: tuple[Path, ...],
    form: str,
    split: str,
    smallest_effect: str,
    interval: str,
    tuning: bool,
    allow: tuple[str, ...],
) -> None:
    """Is A better than B? A verdict for each task, and an overall line. A and B: an optimizer or a label."""
    from vrbench.report import cautions, comparable, formats, tables
    from vrbench.report import compare as comparing

    smallest = comparing.Smallest.parse(smallest_effect)
    arms = _collect(paths, tuning=tuning)
    first, second = comparing.pick(arms, a), comparing.pick(arms, b)
    shared = [key for key in first if key in second]
    if not shared:
        raise ValueError(f"{a} and {b} have no task and model in common")
    couples = [(first[key], second[key]) for key in shared]
    comparable.check_names(allow, arms)
    comparable.refuse(couples, allow)
    if split == "test" and (blind := [arm for couple in couples for arm in couple if cautions.is_blind(arm)]):
        names = " and ".join(arm.name for arm in blind)
        raise ValueError(f"{names}: no run was to read the test split; --split val compares validation")
    found = comparing.compare(couples, split, smallest, interval, allow)
    made = tables.comparison(found, a, b, split, smallest, interval)
    for key in sorted(first.keys() ^ second.keys()):
        made.notes.append(f"{' '.join(key)}: has only {a if key in first else b}; left out.")
    total = comparing.overall(found)
    if form == "json":
        click.echo(formats.as_json(made, overall=tables.overall_record(total)), nl=False)
        return
    made.notes.insert(0, tables.overall_note(total))
    click.echo(formats.FORMATS[form](made), nl=False)


@cli.command()
@_paths
@_output("report/figures")
@click.option("--tuning", is_flag=True, help="The trials of searches too.")
def figures(paths: tuple[Path, ...], output: Path, tuning: bool) -> None:
    """Every figure that the runs have data for, as PNG and SVG."""
    from vrbench.report import figures as drawing

    for path in drawing.write(_collect(paths, tuning=tuning), output):
        click.echo(path)


@cli.command()
@_paths
@_output("report/report.html")
def html(paths: tuple[Path, ...], output: Path) -> None:
    """One self-contained page."""
    from vrbench.report import page

    click.echo(page.write(_collect(paths), output))


@cli.command()
@_paths
@_output("report/paper.md")
def paper(paths: tuple[Path, ...], output: Path) -> None:
    """The paper's tables and figure beside what these runs gave."""
    from vrbench.report import paper as publishing

    click.echo(publishing.write(_collect(paths), output))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a wrong use or a bad record ends in one line and exit code 2."""
    with contextlib.suppress(OSError):
        if os.getcwd() not in sys.path:  # where the user's code is looked up, to see whether it has changed
            sys.path.append(os.getcwd())
    try:
        code = cli.main(arguments, prog_name="vrbench-report", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(error.format_message())
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        _fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    line = "; ".join(part.strip() for part in message.splitlines() if part.strip())
    print(f"vrbench-report: {line}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
