"""`timed_wandb.py FILE WORD …`: vrbench with these words; the seconds that it spends in W&B's calls go to the file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from vrbench.app.main import main
from vrbench.loggers.wandb import WandB

if __name__ == "__main__":
    file, *words = sys.argv[1:]
    waits: list[float] = []
    log = WandB.log

    def timed(self: WandB, row: Any) -> None:
        started = time.perf_counter()
        log(self, row)
        waits.append(time.perf_counter() - started)

    WandB.log = timed  # type: ignore[method-assign]
    sys.argv = ["vrbench", *words]
    try:
        main()
    finally:
        Path(file).write_text(str(sum(waits)))
