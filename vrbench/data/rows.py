"""A column of text in a table of the `datasets` library, read from disk row by row: nothing is held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from vrbench.data.documents import digest
from vrbench.data.hub import Source

if TYPE_CHECKING:
    import datasets
    import pyarrow

_AT_ONCE = 1000


class Rows:
    """The texts of one column, in the order of the table. Each iteration reads them anew.

    Iterating raises ValueError, naming file and row, for a cell that is no text or not UTF-8.
    """

    def __init__(self, source: Source, table: datasets.Dataset, column: str, numbers: np.ndarray | None = None) -> None:
        """`numbers`, in rising order, are those of the rows that count; None: all. Raises ValueError for a column that
        is not there."""
        if column not in table.column_names:
            has = ", ".join(table.column_names)
            raise ValueError(f"column={column}: no such column in {source.path} (it has {has})")
        self._source = source
        self._table = table
        self._column = column
        self._numbers = np.arange(len(table)) if numbers is None else numbers

    def __iter__(self) -> Iterator[str]:
        begin = 0
        for cells in self._cells():
            first, last = np.searchsorted(self._numbers, [begin, begin + len(cells)])
            chosen = self._numbers[first:last]
            wanted = cells if len(chosen) == len(cells) else cells.take(chosen - begin)
            for number, cell in zip(chosen.tolist(), self._texts(wanted, chosen), strict=True):
                if not isinstance(cell, str):
                    holds = "is missing" if cell is None else f"is {type(cell).__name__}, not text"
                    raise ValueError(f"column={self._column}: {self._name(number)} {holds}")
                yield cell
            begin += len(cells)

    def __len__(self) -> int:
        return len(self._numbers)

    def rows(self, numbers: np.ndarray) -> Rows:
        """Those rows of the table alone."""
        return Rows(self._source, self._table, self._column, np.sort(numbers))

    @property
    def key(self) -> str:
        """What the library calls the content of this table (its fingerprint)."""
        return f"{self._table._fingerprint}/{self._column}"

    def _cells(self) -> Iterator[pyarrow.Array | pyarrow.ChunkedArray]:
        """The column, some rows at a time. Its files are read, because pages that are mapped stay in memory."""
        import pyarrow

        for file in self._table.cache_files:
            with pyarrow.OSFile(file["filename"]) as opened, pyarrow.ipc.open_stream(opened) as batches:
                for batch in batches:
                    yield batch.column(self._column)
        if not self._table.cache_files:  # it lies in memory
            for some in self._table.with_format("arrow").iter(_AT_ONCE):
                yield some.column(self._column)

    def _texts(self, cells: pyarrow.Array | pyarrow.ChunkedArray, numbers: np.ndarray) -> list[object]:
        try:
            texts: list[object] = cells.to_pylist()
        except UnicodeDecodeError as error:
            number = next(number for number, cell in zip(numbers, cells, strict=True) if not _is_utf8(cell))
            raise ValueError(f"column={self._column}: {self._name(int(number))} is not UTF-8 text") from error
        return texts

    def _name(self, number: int) -> str:
        return self._source.row(str(self._table.split), number)


def _is_utf8(cell: pyarrow.Scalar) -> bool:
    try:
        cell.as_py()
    except UnicodeDecodeError:
        return False
    return True


def deal_rows(tables: Mapping[str, Rows], shares: Mapping[str, float] | None) -> dict[str, np.ndarray]:
    """Row numbers of each split, int64, in the order of the hashes of their texts.

    Without `shares` the tables are the splits. With them there is one, `train`, and validation and test get those
    shares of it; copies of a text go to one split.
    """
    places = {split: _places(rows) for split, rows in tables.items()}
    order = {split: np.argsort(found, kind="stable") for split, found in places.items()}
    if shares is None:
        return order
    borders = np.cumsum([shares["val"], shares["test"]])
    val, test, train = np.split(order["train"], np.searchsorted(places["train"][order["train"]], borders))
    return {"train": train, "val": val, "test": test}


def _places(rows: Rows) -> np.ndarray:
    """The hash of each text as a number in [0, 1)."""
    return np.fromiter((int(digest(text)[:12], 16) / 16**12 for text in rows), np.float64, len(rows))
