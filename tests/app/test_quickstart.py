"""The quickstart's rates are those that its search found, and none is missing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml

from vrbench.app.project import CONF
from vrbench.runs import archive

ROOT = Path(__file__).parents[2]


def test_the_rates_are_the_best_of_the_committed_search(tmp_path: Path) -> None:
    archive.unpack(ROOT / "results/quickstart_rates/records.tar.xz", tmp_path / "quickstart_rates")
    found = {}
    for path in (tmp_path / "quickstart_rates/search").glob("*/trials.json"):
        search = json.loads(path.read_text())
        (best,) = [trial for trial in search["trials"] if trial["number"] == search["best"]]
        where = f"task={search['choices']['task']} optimizer={search['choices']['optimizer']}"
        found[where] = best["params"]["optimizer.lr"]
        assert search["finished"] == search["budget"] == 9
    sweeper = yaml.safe_load((CONF / "experiment/quickstart.yaml").read_text())["hydra"]["sweeper"]
    params = {key: sweeper["params"][key].split(",") for key in ("task", "optimizer")}
    assert set(found) == {f"task={t} optimizer={o}" for t, o in itertools.product(params["task"], params["optimizer"])}
    stated = {where: float(word.removeprefix("optimizer.lr=")) for where, word in sweeper["each"].items()}
    assert stated == pytest.approx(found, rel=1e-3)
