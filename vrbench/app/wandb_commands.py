"""`vrbench wandb rebuild|workspace|sweep`: what people do with W&B beside the runs. docs/scaling.md"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vrbench.app.refusals import ConfigError, explain, say
from vrbench.extras import missing

COMMANDS = {
    "rebuild": ("vrbench.loggers.rebuild", "write the W&B runs of run folders anew from their records"),
    "workspace": ("vrbench.loggers.workspace", "the layout of a dashboard, printed or saved"),
    "sweep": ("vrbench.app.wandb_sweeps", "a search as a W&B sweep for `wandb agent`"),
}
"""The module whose `main` answers each, and what it is for."""
WRONG = 2


def main(words: Sequence[str]) -> int:
    """Answer `vrbench wandb` with these words after it; the exit code."""
    if words[:1] in ([], ["-h"], ["--help"]):
        lines = [f"  vrbench wandb {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
        print("\n".join(["What people do with W&B beside the runs:", *lines, "Each has --help."]))
        return 0
    if words[0] not in COMMANDS:
        return say(f"wandb {words[0]}: no such command; there are {', '.join(COMMANDS)}", WRONG)
    try:
        importlib.import_module(COMMANDS[words[0]][0]).main(list(words[1:]))
        sys.stdout.flush()
    except ImportError as error:
        if (wanted := missing(error)) is None:
            raise
        return say(f"wandb {words[0]}: {wanted}", WRONG)
    except (ConfigError, ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        return say(f"wandb {words[0]}: {explain(error)}", WRONG)
    return 0
