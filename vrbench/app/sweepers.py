"""Hydra's sweepers of ours: grids, searches and confirmations. main.py puts them where Hydra finds plugins."""

from __future__ import annotations

import contextlib
import io
import itertools
import secrets
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vrbench.app.config import follows_seed, plain, refuse_chosen, search_space, searched_groups, seeded, typed
from vrbench.app.jobs import Checked, RunFailed, broken, planned, seed_apart, stopped, varied
from vrbench.app.progress import SweepView
from vrbench.app.project import given_dirs
from vrbench.app.refusals import ConfigError, checked, errors_at, say
from vrbench.app.run import Prepared, can_have_another_seed, prepare, with_seed
from vrbench.app.signals import STOP_FILE, StopJobs, start_resource_trackers, stopped_by

if TYPE_CHECKING:
    from vrbench.tuning.search import Search


class _Combinations(Sweeper):
    """What our sweepers share: the combinations of what the command line sweeps, and the launcher to run them with."""

    def __init__(self, params: dict[str, str] | None) -> None:
        self.params = params or {}
        self.launched = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's way to hand over the context."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def combinations(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every combination of `hydra.sweeper.params` and `arguments`, as in Hydra's own sweeper.

        A key that is given twice has the later values. Raises ConfigError for a sweep over an interval.
        """
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        choices: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments]):
            key = override.get_key_element()
            if not override.is_sweep_override():
                values = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                values = list(override.sweep_string_iterator())
            else:
                raise ConfigError(f"{override.input_line}: must be values a,b, not an interval; sweep=tune searches")
            choices[key] = [f"{key}={value}" for value in values]
        return [list(combination) for combination in itertools.product(*choices.values())]

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config, hydra's part included, that a job with these overrides gets."""
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def repeated(self, arguments: Sequence[str]) -> list[str]:
        """The words of this command that the next one needs too: the user's config folders, where results lie."""
        assert self.config is not None
        folders = [f"--config-dir={folder}" for folder in given_dirs(self.config)]
        return [*folders, *(word for word in arguments if word.startswith("results_dir="))]

    def check(self, jobs: Sequence[Sequence[str]]) -> list[Checked]:
        """Check the run of every job before the first one starts. Raises what a wrong choice raises.

        Jobs that differ in the seed alone are composed once, where their config allows it: Hydra takes a tenth of a
        second to compose one.
        """
        kinds = [seed_apart(job) for job in jobs]
        many = Counter(words for words, seed in kinds if seed is not None)
        alike: dict[tuple[str, ...], Prepared] = {}
        found = []
        for job, (words, seed) in zip(jobs, kinds, strict=True):
            if seed is not None and words in alike:
                run = with_seed(alike[words], seed)
            else:
                composed = self.compose(job)
                allows = seed is not None and many[words] > 1 and seeded(composed)
                run = self._prepared(composed)
                if allows and can_have_another_seed(run):
                    alike[words] = run
            names = run.info.choices["task"], run.info.choices["optimizer"]
            found.append(Checked(run.info.directory, run.found.action, run.found.line, *names, run.info.seed))
        return found

    def _prepared(self, composed: DictConfig) -> Prepared:
        hydra = HydraConfig.instance()
        before = hydra.cfg
        hydra.set_config(composed)
        try:
            return prepare(composed)
        finally:
            hydra.cfg = before

    def run_all(self, jobs: list[list[str]], at_a_time: int | None = None) -> tuple[list[Path], int]:
        """Check all, say what is to be done, run those that are not over, and say what broke.

        Returns the folders of the runs that did not, and the worst exit code of those that did, 0 where none. Raises
        what `check` and `launch` raise.
        """
        runs = self.check(jobs)
        print(planned(runs), flush=True)
        ends: list[Path | RunFailed] = [run.directory for run in runs]
        to_launch = [place for place, run in enumerate(runs) if not run.settled]
        size = at_a_time or len(jobs)
        to_run = [run.job(words) for run, words in zip(runs, varied(jobs), strict=True) if run.action != "skip"]
        try:
            with SweepView(len(jobs), over=len(jobs) - len(to_run)) as view:
                view.watch(to_run)
                for start in range(0, len(to_launch), size):
                    places = to_launch[start : start + size]
                    for place, end in zip(places, self.launch([jobs[place] for place in places]), strict=True):
                        ends[place] = end
        except (SystemExit, KeyboardInterrupt):
            print(f"stopped: {stopped(runs)}; the same command goes on", flush=True)
            raise
        codes = [end.code for end in ends if isinstance(end, RunFailed)]
        if left_out := codes.count(0):
            say(f"{left_out} of {len(jobs)} left out: {broken(jobs, ends, left_out=True)}", 0)
        if failed := len(codes) - left_out:
            say(f"{failed} of {len(jobs)} broke: {broken(jobs, ends)}", 1)
        return [end for end in ends if isinstance(end, Path)], max(codes, default=0)

    def launch(self, jobs: list[list[str]]) -> list[Path | RunFailed]:
        """Run the jobs with the chosen launcher: the folder of each, or how it failed.

        Raises the error of a job that ended with another one than RunFailed; RunFailed with the code of a signal that
        stopped jobs in other processes, when all have ended.
        """
        assert self.launcher is not None
        assert self.config is not None
        first = self.launched
        self.launched += len(jobs)
        launcher = self.config.hydra.runtime.choices["hydra/launcher"]
        if launcher == "basic":  # runs them in this process, which stops
            return [_ended(result) for result in self.launcher.launch(jobs, initial_job_idx=first)]
        from vrbench.tuning.confirmation import literal

        file = Path(self.config.hydra.sweep.dir).resolve() / f".stop-{secrets.token_hex(8)}"
        asked = f"++hydra.job.env_set.{STOP_FILE}={literal(str(file))}"
        if launcher == "joblib":
            start_resource_trackers()
        with StopJobs(file) as stop:
            results = self.launcher.launch([[*job, asked] for job in jobs], initial_job_idx=first)
        done = [_ended(result) for result in results]
        if stop.received is not None:
            over = sum(isinstance(end, Path) for end in done)
            line = f"{over} of {len(done)} runs are over, and the same command goes on with the others"
            raise RunFailed(say(f"{stopped_by(stop.received)}: {line}", 128 + stop.received))
        return done


def _ended(result: JobReturn) -> Path | RunFailed:
    """The folder of a job's run, or how it failed."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # Hydra lists the job's overrides: the run has said its own
            return Path(result.return_value)
    except RunFailed as failure:
        return failure


def with_own(job: Sequence[str], each: Mapping[str, str]) -> list[str]:
    """The job's overrides, and those that `each` has for a job with all the words before its colon.

    `{"task=digits optimizer=sgd": "optimizer.lr=0.1"}`; a key that the job has already keeps its value.
    """
    given = {word.partition("=")[0] for word in job}
    own = [word for words, more in each.items() if set(words.split()) <= set(job) for word in more.split()]
    return [*job, *(word for word in own if word.partition("=")[0] not in given)]


class Grid(_Combinations):
    """Hydra sweeper, and the default: every combination, then the table of each study that they belong to."""

    def __init__(
        self,
        params: dict[str, str] | None,
        max_batch_size: int | None,
        each: dict[str, str] | None = None,
        not_installed: str = "refuse",
    ) -> None:
        super().__init__(params)
        if not_installed not in ("refuse", "leave_out"):
            raise ConfigError(f"hydra.sweeper.not_installed={not_installed}: must be refuse or leave_out")
        self.max_batch_size = max_batch_size
        self.each = each or {}

    def sweep(self, arguments: list[str]) -> list[Path]:
        """Check them all, then run them, at most `max_batch_size` at a time; their folders.

        Raises RunFailed where one failed.
        """
        jobs = [with_own(job, self.each) for job in self.combinations(arguments)]
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ConfigError(f"hydra.sweeper.max_batch_size={self.max_batch_size}: must be 1 or more, or null for all")
        done, code = self.run_all(jobs, self.max_batch_size)
        from vrbench.report.study import print_study

        for study in dict.fromkeys(folder.parent for folder in done):
            print_study(study)
        if code:
            raise RunFailed(code)
        return done


SPLIT = "task.data.split_seed"


class Tune(_Combinations):
    """Hydra sweeper: searches for each combination of what the command line sweeps. conf/hydra/sweeper/search.yaml"""

    def __init__(
        self,
        params: dict[str, str] | None,
        trial: None,
        replicates: int,
        vary_split: bool,
        check: bool,
        **settings: Any,
    ) -> None:
        super().__init__(params)
        self.only_check = check
        self.replicates = replicates
        self.vary_split = vary_split
        self.settings = settings

    def sweep(self, arguments: list[str]) -> list[Path]:
        """Check every search, then spend the budget of each; the folders of their trials.

        Raises ConfigError; RunFailed where a run broke.
        """
        if self.replicates < 1:
            raise ConfigError(f"hydra.sweeper.replicates={self.replicates}: must be 1 or more")
        combinations = self.combinations(arguments)
        searches = [self._search(words, replicate) for replicate in range(self.replicates) for words in combinations]
        if self.only_check:
            return []
        with errors_at("hydra.sweeper"):
            code = self._spend([(begin(), overrides) for begin, overrides in searches])
        if code:
            raise RunFailed(code)
        configs = [plain(self.compose(words)) for words in combinations]
        for study in dict.fromkeys(config["study"] for config in configs):
            words = ["-m", *self.repeated(arguments), "experiment=confirm", f"study={study}"]
            print(f"confirm on fresh seeds: vrbench {shlex.join(words)}")
        return list(dict.fromkeys(Path(config["results_dir"]) / config["study"] / "tune" for config in configs))

    def _spend(self, searches: Sequence[tuple[Search, list[str]]]) -> int:
        """Run the trials of all, one search after the other, and say how far they are; the worst exit code of a run."""
        runs = sum(search.budget * len(search.settings.seeds) for search, _ in searches)

        def over() -> int:
            return sum(len(search.finished) * len(search.settings.seeds) for search, _ in searches)

        def launch(common: list[str], params: list[list[str]]) -> list[Path | int]:
            jobs = [[*common, *words] for words in params]
            view.watch([run.job(words) for run, words in zip(self.check(jobs), params, strict=True)], over())
            return [end.code if isinstance(end, RunFailed) else end for end in self.launch(jobs)]

        print(f"searches: {len(searches)}, with {runs} runs, {over()} of them over", flush=True)
        try:
            with SweepView(runs, over()) as view:
                return max(search.spend(partial(launch, common)) for search, common in searches)
        except (SystemExit, KeyboardInterrupt):
            print(f"stopped: {over()} of {runs} over; the same command goes on", flush=True)
            raise

    def _search(self, overrides: list[str], replicate: int) -> tuple[Callable[[], Search], list[str]]:
        """How to begin a search, and the overrides that all its trials have. Raises ConfigError for a wrong one."""
        with errors_at("sweep"):
            from vrbench.tuning import search
        from vrbench.tuning.confirmation import spaced

        if any(override.startswith("seed=") for override in overrides):
            raise ConfigError("seed: a search has seeds of its own; give hydra.sweeper.seeds=[…]")
        composed = self.compose(overrides)
        if self.vary_split:
            if OmegaConf.select(composed, SPLIT) is not None:
                overrides = [*overrides, f"{SPLIT}={replicate}"]
                composed = self.compose(overrides)
            elif not replicate:
                print(f"{composed.task.name}: its split is fixed (no {SPLIT}), every replicate has the same data")
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        space = search_space(composed, loader)
        groups = searched_groups(space, composed, loader)
        refuse_chosen(groups, overrides)
        composed = self.compose([*overrides, *(f"{group}={names[0]}" for group, names in groups.items())])
        others = [
            typed(self.compose([*overrides, f"{group}={name}"]))
            for group, names in groups.items()
            for name in names[1:]
        ]
        follows = follows_seed(composed)
        config, chosen = typed(composed), composed.hydra.runtime.choices
        choices = {str(group): str(choice) for group, choice in chosen.items() if choice and _decides(str(group))}
        named = OmegaConf.to_container(composed.hydra.sweeper, resolve=True, throw_on_missing=True)
        assert isinstance(named, dict)
        wanted = {str(key): named[key] for key in self.settings} | {"space": space, "replicate": replicate}
        settings = checked(search.SearchSettings, wanted, "hydra.sweeper.")
        wanted["seeds"] = spaced(settings.seeds, replicate)
        settings = checked(search.SearchSettings, wanted, "hydra.sweeper.")

        def base(choices: Mapping[str, str]) -> dict[str, Any]:
            named = choices if chosen["sweep"] is None else {**choices, "sweep": chosen["sweep"]}
            return plain(self.compose([f"{group}={choice}" for group, choice in named.items()]))

        study = Path(config["results_dir"]) / config["study"]
        here = [f"study={config['study']}/tune", "trainer.evaluate_test=false"]
        self.check([[*overrides, *here, *(f"{group}={names[0]}" for group, names in groups.items())]])

        return partial(search.Search, study, choices, settings, config, base, follows, others), [*overrides, *here]


class Confirm(_Combinations):
    """Hydra sweeper: the best configuration of every search of the study, on fresh seeds."""

    def __init__(self, params: dict[str, str] | None, table: str, tuned: None) -> None:
        super().__init__(params)
        self.table = table

    def sweep(self, arguments: list[str]) -> list[Path]:
        """Run them all; their folders. Raises RunFailed where one failed, ConfigError where the study is not ready."""
        from vrbench.report.study import print_study
        from vrbench.tuning import confirmation
        from vrbench.tuning.confirmation import literal

        combinations = self.combinations(arguments)
        config = plain(self.compose(combinations[0]))
        seeds = sorted(
            {int(word.partition("=")[2]) for job in combinations for word in job if word.startswith("seed=")}
        )
        try:
            found = confirmation.candidates(Path(config["results_dir"]) / config["study"])
            confirmation.check_seeds(found, seeds)
            if config["force"] != "resume":
                confirmation.check_code(found)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for line in confirmation.cautions(found, seeds):
            print(f"vrbench: {line}", file=sys.stderr)
        study = f"study={config['study']}/{self.table}"
        jobs = []
        for best in found:
            confirmation.close(best.folder, confirmation.spaced(seeds, best.replicate))
            own = dict(zip(seeds, confirmation.spaced(seeds, best.replicate), strict=True))
            here = [study, f"hydra.sweeper.tuned={literal(str(best.folder))}"]
            jobs += [[*best.overrides, *_with_seed(job, own), *here] for job in combinations]
        done, code = self.run_all(jobs)
        for folder in dict.fromkeys(run.parent for run in done):
            print_study(folder)
            page = folder.parent / "report" / "report.html"
            print(f"a page of it: vrbench report {shlex.join(['html', str(folder), '-o', str(page)])}")
            rivals = list(dict.fromkeys(best.summary["choices"]["optimizer"] for best in found))
            if len(rivals) > 1:
                print(f"a verdict: vrbench report {shlex.join(['compare', *rivals[:2], str(folder)])}")
        if code:
            raise RunFailed(code)
        return done


def _with_seed(job: Sequence[str], own: dict[int, int]) -> list[str]:
    """The job's overrides, with the replicate's own seed in place of replicate 0's."""
    words = []
    for word in job:
        key, _, value = word.partition("=")
        words.append(f"seed={own[int(value)]}" if key == "seed" else word)
    return words


def _decides(group: str) -> bool:
    """Whether the choice of a config group decides what a run computes."""
    return group.split("/")[0] not in ("hydra", "experiment", "sweep", "logger")
