"""The command `vrbench-report`: tables, comparisons, figures and pages from run folders. It never trains."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from vrbench import __version__, terminal
from vrbench.report import layout
from vrbench.report.arms import Arm
from vrbench.report.collect import collect

if TYPE_CHECKING:
    from vrbench.report.looks import Mode

INTERVALS = ("bootstrap-t", "bca", "t")


class _Command(click.Command):
    """A command whose help has words for signs that stdout lacks."""

    def get_help(self, ctx: click.Context) -> str:
        return terminal.worded(super().get_help(ctx), sys.stdout)


class _Group(click.Group):
    command_class = _Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(__version__, message="vrbench %(version)s")
def cli() -> None:
    """Read run folders, studies or whole results roots, and say what they show."""


def _paths(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))(command)


def _output(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--output", "-o", type=click.Path(path_type=Path), default=default, show_default=True)


def _statistics(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        layout.options,
        click.option("--split", type=click.Choice(["val", "test"]), default="test", show_default=True),
        click.option(
            "--smallest-effect",
            metavar="AMOUNT | TASK=AMOUNT,…",
            help="The smallest difference that matters, declared before looking: 1% of B's mean, 0.002 in the metric's "
            "unit, log:0.02 (log ratio of losses), error:5% (of B's error rate).  [default: the plan's; else 1%, and "
            "said to be]",
        ),
        click.option("--interval", type=click.Choice(INTERVALS), default="bootstrap-t", show_default=True),
        click.option(
            "--family",
            type=click.IntRange(min=1),
            metavar="TESTS",
            help="How many tests the study has in all, where fewer are shown: Holm's correction is over so many.  "
            "[default: the plan's, or those shown]",
        ),
        click.option(
            "--test",
            type=click.Choice(["auto", "fixed", "anytime"]),
            default="auto",
            show_default=True,
            help="auto: anytime-valid as soon as fewer runs were looked at before.",
        ),
        click.option("--tuning", is_flag=True, help="The trials of searches too."),
        click.option(
            "--allow",
            metavar="KEY[,KEY…]",
            default="",
            callback=lambda context, option, value: _words(value),
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
    shown: layout.Layout,
    split: str,
    smallest_effect: str | None,
    interval: str,
    family: int | None,
    test: Mode,
    tuning: bool,
    allow: tuple[str, ...],
    baseline: str | None,
) -> None:
    """One row for each configuration, over its seeds."""
    from vrbench.report import verdicts

    made = verdicts.summary(
        _collect(paths, tuning=tuning),
        split=split,
        baseline=baseline,
        smallest_effect=smallest_effect,
        interval=interval,
        family=family,
        test=test,
        allow=allow,
        numerals=shown.numerals,
    )
    print(shown.text(made), end="")


@cli.command()
@click.argument("a")
@click.argument("b")
@_paths
@_statistics
@click.option("--best", is_flag=True, help="Of several arms that A or B names, the best by validation.")
def compare(
    a: str,
    b: str,
    paths: tuple[Path, ...],
    shown: layout.Layout,
    split: str,
    smallest_effect: str | None,
    interval: str,
    family: int | None,
    test: Mode,
    tuning: bool,
    allow: tuple[str, ...],
    best: bool,
) -> None:
    """Is A better than B? A verdict for each task, and an overall line. A and B: an optimizer or a label."""
    from vrbench.report import verdicts
    from vrbench.report.loading import Runs

    found = verdicts.compare(
        Runs(tuple(_collect(paths, tuning=tuning))),
        a,
        b,
        split=split,
        smallest_effect=smallest_effect,
        interval=interval,
        family=family,
        test=test,
        allow=allow,
        best=best,
        numerals=shown.numerals,
    )
    print(shown.text(found.table if shown.form == "json" else found.whole, overall=found.overall), end="")


@cli.command()
@_paths
@click.option("--format", "form", type=click.Choice(layout.FORMATS), default="csv", show_default=True)
@click.option("--tuning", is_flag=True, help="The trials of searches too.")
def runs(paths: tuple[Path, ...], form: str, tuning: bool) -> None:
    """One row a run: what it is, its metrics, and the settings in which runs differ; CSV and JSON with all digits."""
    from vrbench.report import run_table

    print(layout.Layout(form).text(run_table.runs(_collect(paths, tuning=tuning))), end="")


@cli.command()
@_paths
@layout.form_option
@click.option("--within", default="5%", show_default=True, help="How near to the best a trial of a search is good.")
def tasks(paths: tuple[Path, ...], form: str, within: str) -> None:
    """Over all tasks: who reaches targets first (AlgoPerf's profiles), and how much of each search space is good."""
    from vrbench.report import formats, task_summary

    try:
        tolerance = float(within.removesuffix("%")) / 100
    except ValueError:
        tolerance = -1.0
    if not 0 <= tolerance < 1:
        raise ValueError(f"within={within}: must be a share of the best (5%)")
    arms = [arm for arm in _collect(paths) if arm.over]
    made = task_summary.time_profiles(arms)
    made.notes.extend(task_summary.one_setting(arms))
    good = task_summary.robustness(arms, tolerance)
    for one in filter(None, (made, good)):
        print(formats.FORMATS[form](one))


@cli.command()
@_paths
@_output("report/figures")
@click.option("--tuning", is_flag=True, help="The trials of searches too.")
@click.option("--only", metavar="KIND,…", default="", help="These kinds of figures alone: forest,curves,cost.")
@click.option("--metric", metavar="NAME[:min|max]", default="", help="Instead of each task's primary metric: loss.")
@click.option("--arms", "chosen", metavar="ARM,…", default="", help="These alone: an optimizer or a label each.")
@click.option("--size", metavar="single | double | text | WxH", help="Printed size; inches.  [default: each its own]")
@click.option("--names", metavar="OLD=NEW,…", default="", help="What to write for an optimizer or a label.")
def figures(
    paths: tuple[Path, ...],
    output: Path,
    tuning: bool,
    only: str,
    metric: str,
    chosen: str,
    size: str | None,
    names: str,
) -> None:
    """Every figure that the runs have data for, as PNG, SVG and PDF; those that are not drawn are said, and why."""
    from vrbench.report import figures as drawing
    from vrbench.report.style import Size
    from vrbench.report.view import View, names_of

    view = View(Size.parse(size) if size else None, names_of(names), _words(chosen), metric)
    kinds = _words(only)
    for kind in kinds:
        if kind not in drawing.KINDS:
            raise ValueError(f"only={kind}: no such figure; there are {', '.join(drawing.KINDS)}")
    for path in drawing.write(_collect(paths, tuning=tuning), output, view, kinds):
        print(path)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


@cli.command()
@_paths
@_output("report/report.html")
def html(paths: tuple[Path, ...], output: Path) -> None:
    """One self-contained page; what its verdicts need is what the study's plan declares."""
    from vrbench.report import page

    print(page.write(_collect(paths), output))


@cli.command()
@click.argument("study", type=click.Path(path_type=Path))
@_output("results/<study>")
@click.option("--records", is_flag=True, help="The records alone, without a look at what they say.")
def publish(study: Path, output: Path, records: bool) -> None:
    """What is to be committed of a study: its records in one small file, tables and a forest plot made from it."""
    from vrbench.report import publish as publishing

    folder = Path("results") / study.name if output == Path("results/<study>") else output
    for path in publishing.publish(study, folder, tables_too=not records):
        print(path)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def rebuild(folder: Path) -> None:
    """A published study's tables and plot again, from its records alone."""
    from vrbench.report import publish as publishing

    for path in publishing.rebuild(folder):
        print(path)


@cli.command()
@_paths
@_output("report/paper.md")
def paper(paths: tuple[Path, ...], output: Path) -> None:
    """The paper's tables and figure beside what these runs gave."""
    from vrbench.report import paper as publishing

    print(publishing.write(_collect(paths), output))


@terminal.output()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a wrong use or a bad record ends in one line and exit code 2."""
    with contextlib.suppress(OSError):
        if os.getcwd() not in sys.path:  # where the user's code is looked up, to see whether it has changed
            sys.path.append(os.getcwd())
    try:
        code = cli.main(arguments, prog_name="vrbench-report", standalone_mode=False)
    except BrokenPipeError:
        raise
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
