"""The command line: hands Hydra's config to a run, and says in one line what went wrong."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from vrbench import terminal
from vrbench.app import command_line, project
from vrbench.app.jobs import RunFailed
from vrbench.app.plugins import add_plugins
from vrbench.app.refusals import ConfigError, explain, one_line, say
from vrbench.app.run import left_out, run
from vrbench.app.signals import launched, passed_on, stopped_by
from vrbench.runs import records
from vrbench.runs.redact import hide

TRACEBACKS = "VRBENCH_TRACEBACKS"
"""Variable that asks, in this process and those of its jobs, for the traceback of an error of the user too."""

COMMANDS = {
    "list": "vrbench.app.listing",
    "new": "vrbench.app.new",
    "check": "vrbench.app.check",
    "study": "vrbench.app.study",
    "report": "vrbench.report.main",
    "index": "vrbench.runs.index",
    "cite": "vrbench.app.cite",
    "wandb": "vrbench.app.wandb_commands",
}
"""First words that are no override of a run's config, with the module whose `main` answers them."""

WRONG_CONFIG = 2
BROKEN_RUN = 1


@terminal.output()
def main() -> None:
    """Run `vrbench`. Exit codes: 0 done (diverged too), 2 wrong config, 1 broken run, 128 + n stopped by signal n."""
    atexit.register(gc.freeze)  # nobody needs the garbage of a process that ends, and looking through it all takes long
    try:
        project.enter(project.current())
    except ConfigError as error:
        sys.exit(say(str(error), WRONG_CONFIG))
    if "OMP_WAIT_POLICY" not in os.environ:  # wait tens of microseconds at a barrier, then give way to other processes
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ[TRACEBACKS] = "1"
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:]))
    add_plugins()
    try:
        sys.argv[1:] = command_line.read(sys.argv[1:])
    except ConfigError as error:
        sys.exit(say(str(error), WRONG_CONFIG))
    command = hydra.main(version_base="1.3", config_path=str(project.CONF), config_name="config")(job)
    try:
        with _errors_raised():
            command()
    except RunFailed as failure:
        sys.exit(failure.code)
    except KeyboardInterrupt:
        line = "finished runs stay, and the same command goes on with the others, from their last checkpoints"
        sys.exit(say(f"{stopped_by(signal.SIGINT)}: {line}", 128 + signal.SIGINT))
    except Exception as error:  # of Hydra, OmegaConf, YAML or the system, on the way to a config
        if TRACEBACKS in os.environ:
            raise
        sys.exit(say(command_line.told(error, sys.argv[1:]), _code(error)))


@contextlib.contextmanager
def _errors_raised() -> Iterator[None]:
    """Within the block Hydra raises what goes wrong, for us to say in one line, and prints nothing itself."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def job(cfg: DictConfig) -> str:
    """One run, its folder: a failure is one line at once, and ends the process only when the run is the only one.

    In a process that a launcher has started nothing ends the process: a launcher that loses one ends the others, too.
    """
    code = 128 + (passed_on() or 0)
    if code > 128:  # it was still queued when all were told to stop
        raise RunFailed(code)
    try:
        return str(run(cfg))
    except (ConfigError, ValidationError, OmegaConfBaseException, OSError) as error:
        if TRACEBACKS in os.environ:
            raise
        line = explain(error)
        code = 0 if left_out(error) else say(line, _code(error))
    except Exception as error:
        print(hide(traceback.format_exc()), file=sys.stderr, end="")
        line = one_line(f"{type(error).__name__}: {error}")
        code = say("the run broke (traceback above); the same command resumes it from its last checkpoint", BROKEN_RUN)
    except SystemExit as stop:  # at a signal, and it has said so
        if not launched():
            raise
        line, code = "stopped", int(stop.code or 0)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RunFailed(code, hide(line))
    sys.exit(code)


def _code(error: Exception) -> int:
    return BROKEN_RUN if isinstance(error, records.CannotWrite) else WRONG_CONFIG
