"""Write tables as Parquet, block by block, with pyarrow (the extra `remote`)."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handful.errors import HandfulError
from handful.output import PARQUET_KIND, written

ENDING = ".parquet"


def is_parquet(path: Path) -> bool:
    """Whether a file of this name is written as Parquet."""
    return path.suffix.lower() == ENDING


def check_parquet(path: Path) -> None:
    """HandfulError, before any work, if `path` is to be Parquet and pyarrow is not installed."""
    if is_parquet(path):
        _pyarrow(path)


def write_parquet(
    path: Path, kind: str, blocks: Iterable[dict[str, Any]], about: dict[str, Any] | None = None
) -> int:
    """Write blocks of columns as one file, and return the number of rows.

    Args:
        kind: what the table is, for `output_target`.
        blocks: columns by name: lists of text (or None), and arrays (N,) or (N, D). All blocks
            have the same columns; there is at least one block.
        about: plain data that is kept in the file.
    """
    pyarrow = _pyarrow(path)
    from pyarrow.parquet import ParquetWriter

    told = {PARQUET_KIND: kind, "about": json.dumps(about or {})}
    rows, writer = 0, None
    with written(path) as temporary:
        try:
            for block in blocks:
                columns = {name: _column(pyarrow, values) for name, values in block.items()}
                table = pyarrow.table(columns).replace_schema_metadata(told)
                if writer is None:
                    writer = ParquetWriter(temporary, table.schema, compression="zstd")
                writer.write_table(table)
                rows += len(table)
        finally:
            if writer is not None:
                writer.close()
    return rows


def _column(pyarrow: Any, values: Any) -> Any:
    if not isinstance(values, np.ndarray):
        return pyarrow.array([_valid(value) for value in values], pyarrow.string())
    if values.ndim == 2:
        flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
        return pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pyarrow.array(values)


def _valid(text: str | None) -> str | None:
    """Text that is valid Unicode: other bytes of file names become escapes."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise HandfulError(
            f"{path} is to be Parquet, which needs pyarrow: pip install 'handful[remote]'; or give "
            f"--out another ending"
        ) from None
    return pyarrow


def columns_of(names: Sequence[str], shares: np.ndarray) -> dict[str, np.ndarray]:
    """A column (N,) for each name, of shares (N, K)."""
    return {name: np.ascontiguousarray(shares[:, k]) for k, name in enumerate(names)}
