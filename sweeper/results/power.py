"""The power trace of a launch: how it is attached, and as a table (pure but for pyarrow)."""

import csv
import gzip
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sweeper.errors import JournalError
from sweeper.results.attachments import LIMIT_BYTES

Sample = tuple[float, str, float]
"""(seconds of the launch's clock, device, watts)."""
Span = tuple[int, float, float]
"""(window's index, its start, its end), seconds of the launch's clock."""

COLUMNS = ("t_s", "device", "watts")


def pack_trace(samples: Sequence[Sample], limit_bytes: int = LIMIT_BYTES) -> bytes:
    """A trace as gzipped CSV: microseconds, milliwatts.

    One that would be too long keeps every second sample of each device, or every fourth, and so on.
    """
    stride = 1
    while len(packed := gzip.compress(_csv(samples, stride), mtime=0)) > limit_bytes:
        if stride > len(samples):
            raise JournalError(f"a power trace does not fit {limit_bytes} bytes")
        stride *= 2
    return packed


def _csv(samples: Sequence[Sample], stride: int) -> bytes:
    seen: Counter[str] = Counter()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for t_s, device, watts in samples:
        if seen[device] % stride == 0:
            rows.writerow((f"{t_s:.6f}", device, f"{watts:.3f}"))
        seen[device] += 1
    return text.getvalue().encode()


def unpack_trace(data: bytes) -> list[Sample]:
    """What `pack_trace` packed.

    Raises:
        JournalError: it is something else.
    """
    columns = (column.to_pylist() for column in _table(data).itercolumns())
    return list(zip(*columns, strict=True))


def trace_parquet(packed: bytes, spans: Sequence[Span]) -> bytes:
    """The samples within each span, an edge belonging to both its sides, as Parquet.

    Its columns are `window, t_s, device, watts`.

    Raises:
        JournalError: `packed` is not what `pack_trace` packed.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = _table(packed)
    parts = [table.slice(0, 0).add_column(0, "window", pa.array([], pa.int32()))]
    for index, start_s, end_s in spans:
        within = pc.and_(
            pc.greater_equal(table["t_s"], start_s), pc.less_equal(table["t_s"], end_s)
        )
        part = table.filter(within)
        parts.append(part.add_column(0, "window", pa.array([index] * part.num_rows, pa.int32())))
    file = io.BytesIO()
    pq.write_table(pa.concat_tables(parts), file)
    return file.getvalue()


def _table(packed: bytes) -> Any:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = dict(zip(COLUMNS, (pa.float64(), pa.string(), pa.float64()), strict=True))
    try:
        data = gzip.decompress(packed)
        header = data.partition(b"\n")[0].decode()
        if header != ",".join(COLUMNS):
            raise JournalError(f"a power trace must begin with {COLUMNS}, not {header!r}")
        return arrow_csv.read_csv(
            io.BytesIO(data), convert_options=arrow_csv.ConvertOptions(column_types=types)
        )
    except (OSError, EOFError, ValueError) as error:
        raise JournalError(f"a damaged power trace: {error}") from error
