"""The picture and the page of schedules show conf/schedule as it is now; one that was added needs no row."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import plot_schedules

PAGE = (ROOT / "docs/schedules.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \|(.*)$", PAGE, re.M)
PICTURE = (ROOT / "docs/images/schedules.svg").read_text()


def test_the_picture_is_what_the_script_draws(tmp_path: Path) -> None:
    """Its titles are those of the page's rows; drawn again by the same matplotlib it is the same picture."""
    titles = set(re.findall(r">(\w+)</text>", PICTURE))
    assert titles >= {name for name, _ in ROWS}
    plot_schedules.main(["--output", str(tmp_path / "again.svg")])
    again = (tmp_path / "again.svg").read_text()
    found = set(re.findall(r">(\w+)</text>", again))
    assert found >= titles
    if found == titles and f"Matplotlib v{version('matplotlib')}," in PICTURE:
        names = re.compile(r"\b[a-z][0-9a-f]{10}\b")  # of clipping paths and markers: numpy's version changes them
        assert names.sub("name", again) == names.sub("name", PICTURE)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_the_page_names_each_schedules_keys(name: str, row: str) -> None:
    keys = yaml.safe_load((ROOT / f"conf/schedule/{name}.yaml").read_text()).keys()
    for key in keys - {"_target_", "_partial_", "_convert_", "warmup"}:
        assert f"`{key}`" in row


def test_the_page_names_each_once() -> None:
    names = [name for name, _ in ROWS]
    assert len(names) == len(set(names)) >= 9


def test_the_pages_own_yamls_work(tmp_path: Path) -> None:
    """Both examples of "Add one" pass the kit's checks."""
    from vrbench.app import check

    blocks = re.findall(r"((?:^    .*\n|^\n)+)", PAGE.partition("## Add one")[2], re.M)
    folder = tmp_path / "conf/schedule"
    folder.mkdir(parents=True)
    text = re.sub(r"^    ", "", "".join(blocks), flags=re.M)
    _, momentum, code, mine = re.split(r"^# (?:conf|vrbench)/\S+.*\n", text, flags=re.M)
    (folder / "momentum.yaml").write_text(momentum)
    (folder / "mine.yaml").write_text(mine.replace("vrbench.training.mine", "mine_of_the_page"))
    (tmp_path / "mine_of_the_page.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert check.main(["--config-dir", str(tmp_path / "conf"), "schedule=momentum", "schedule=mine"]) == 0
