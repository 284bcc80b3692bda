"""docs/performance.md shows what results/bench holds."""

from __future__ import annotations

import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "bench"))


def test_the_page_has_the_table_of_the_records() -> None:
    """Else: python scripts/bench/table.py --page docs/performance.md"""
    import table

    text = (ROOT / "docs" / "performance.md").read_text()
    assert table.page() in text
    assert text.count("| figure |") == len(list(table.records()))
