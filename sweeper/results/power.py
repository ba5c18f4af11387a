"""The power trace of a launch: how it is attached, and as a table (pure but for pyarrow)."""

import gzip
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sweeper.errors import JournalError
from sweeper.results.attachments import LIMIT_BYTES

Sample = tuple[float, str, float]
"""(seconds of the launch's clock, device, watts)."""
Span = tuple[int, float, float]
"""(window's index, its start, its end), seconds of the launch's clock."""

_HEADER = "t_s,device,watts"


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
    rows = [_HEADER]
    for t_s, device, watts in samples:
        if seen[device] % stride == 0:
            rows.append(f"{t_s:.6f},{device},{watts:.3f}")
        seen[device] += 1
    return "\n".join([*rows, ""]).encode()


def unpack_trace(data: bytes) -> list[Sample]:
    """What `pack_trace` packed.

    Raises:
        JournalError: it is something else.
    """
    try:
        header, *rows = gzip.decompress(data).decode().splitlines()
        if header != _HEADER:
            raise JournalError(f"a power trace must begin with {_HEADER}, not {header!r}")
        return [_sample(row) for row in rows]
    except (OSError, EOFError, ValueError) as error:
        raise JournalError(f"a damaged power trace: {error}") from error


def _sample(row: str) -> Sample:
    t_s, rest = row.split(",", 1)
    device, watts = rest.rsplit(",", 1)
    return float(t_s), device, float(watts)


def inside(samples: Iterable[Sample], spans: Sequence[Span]) -> Iterator[tuple[int, Sample]]:
    """The samples within each span, with the span's index; an edge belongs to both its sides."""
    for sample in samples:
        for index, start_s, end_s in spans:
            if start_s <= sample[0] <= end_s:
                yield index, sample


def trace_parquet(samples: Iterable[Sample], spans: Sequence[Span]) -> bytes:
    """The trace of one record's windows as Parquet: `window, t_s, device, watts`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(index, *sample) for index, sample in inside(samples, spans)]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    types = [pa.int32(), pa.float64(), pa.string(), pa.float64()]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names=["window", "t_s", "device", "watts"]), file)
    return file.getvalue()
