"""The rows of a log of energy or power, as they come, by device and as cumulative joules.

A CSV file with a header: `t_s` (seconds, or ISO 8601 with its offset), `device`, and one of
`joules` (a counter) and `watts` (integrated from sample to sample). Other columns are left alone.
"""

import csv
import math
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sweeper.errors import MeterError

EPOCH_J = 1e12
"""What is known before a gap and after it has nothing in common. Joules after each gap begin so far
below those before it that their difference is no energy, whoever takes it."""


@dataclass(slots=True)
class Track:
    """One device: moments and cumulative joules, both as long as each other.

    `gaps` are the moments after which nothing is known until the next row, with the reason.
    """

    times_s: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    gaps: list[tuple[float, MeterError]] = field(default_factory=list)
    last: float = 0.0

    def at(self, t_s: float, max_gap_s: float) -> float:
        """Joules at a moment, between the rows around it.

        Raises:
            MeterError: `not_bracketed` for a moment before the first row or after the last one,
                `sample_gap` where the rows around it are too far apart.
        """
        place = bisect_left(self.times_s, t_s)
        if place == len(self.times_s) or (place == 0 and self.times_s[0] != t_s):
            raise MeterError("not_bracketed", f"no rows of the log around {t_s:.3f}")
        if self.times_s[place] == t_s:
            return self.joules[place]
        (from_s, until_s), (low_j, high_j) = (
            self.times_s[place - 1 : place + 1],
            self.joules[place - 1 : place + 1],
        )
        if until_s - from_s > max_gap_s:
            raise MeterError("sample_gap", f"{until_s - from_s:.1f} s without a row at {t_s:.3f}")
        return low_j + (high_j - low_j) * (t_s - from_s) / (until_s - from_s)


class Recording:
    """A log that may still grow; `unit` is `joules` or `watts` once its header was read."""

    def __init__(self, file: Path, max_gap_s: float) -> None:
        self._file = file
        self._max_gap_s = max_gap_s
        self._offset = 0
        self._header: list[str] = []
        self.unit = ""
        self.tracks: dict[str, Track] = {}

    def more(self) -> None:
        """Read what was written since; a row that is not finished yet is left for the next time.

        Raises:
            MeterError: `log_missing` where the file cannot be read, `log_damaged` for a header or
                a row that is none.
        """
        try:
            with self._file.open("rb") as log:
                log.seek(self._offset)
                new = log.read()
        except OSError as error:
            raise MeterError("log_missing", f"{self._file}: {error.strerror}") from error
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for cells in csv.reader(whole.decode(errors="replace").splitlines()):
            if not self._header:
                self._begin(cells)
            elif cells:
                self._row(cells)

    def _begin(self, cells: list[str]) -> None:
        self._header = [cell.strip() for cell in cells]
        units = [unit for unit in ("joules", "watts") if unit in self._header]
        if not {"t_s", "device"} <= set(self._header) or len(units) != 1:
            raise MeterError(
                "log_damaged",
                f"{self._file}: its header is {','.join(cells)!r}, wanted: t_s, device, and one of "
                "joules and watts",
            )
        [self.unit] = units

    def _row(self, cells: list[str]) -> None:
        named = dict(zip(self._header, cells, strict=False))
        try:
            t_s, value = _seconds(named["t_s"]), float(named[self.unit])
            device = named["device"].strip()
        except (KeyError, ValueError) as error:
            raise MeterError("log_damaged", f"{self._file}: {','.join(cells)!r}") from error
        if not (math.isfinite(t_s) and math.isfinite(value) and value >= 0 and device):
            raise MeterError("log_damaged", f"{self._file}: {','.join(cells)!r}")
        self._add(self.tracks.setdefault(device, Track()), device, t_s, value)

    def _add(self, track: Track, device: str, t_s: float, value: float) -> None:
        if not track.times_s:
            track.times_s.append(t_s)
            track.joules.append(0.0)
            track.last = value
            return
        last_s = track.times_s[-1]
        if t_s <= last_s:
            raise MeterError("log_damaged", f"{self._file}: {device} at {t_s} after {last_s}")
        if self.unit == "joules":
            spent_j, lost = value - track.last, value < track.last
            why = MeterError("counter_reset", f"{device} went from {track.last} J to {value} J")
        else:
            spent_j = (track.last + value) / 2 * (t_s - last_s)
            lost = t_s - last_s > self._max_gap_s
            why = MeterError("sample_gap", f"{device}: {t_s - last_s:.1f} s without a sample")
        if lost:
            track.gaps.append((last_s, why))
            spent_j = -EPOCH_J
        track.times_s.append(t_s)
        track.joules.append(track.joules[-1] + spent_j)
        track.last = value


def _seconds(text: str) -> float:
    """Seconds as written, or since 1970 of a date with its offset from UTC."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            raise ValueError("a date without its offset from UTC") from None
        return moment.timestamp()
