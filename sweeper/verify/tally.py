"""What was compared: how many numbers of each kind, where they differ, and what could not be made.

Tolerances: counts and words are equal; samples are as kept, to the microsecond (gaps to 10 µs);
what is made of a power trace, kept to the microsecond and milliwatt, may differ by `ROUNDED`, every
other number by `RELATIVE`, which leaves room for another order of the same additions.
"""

import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from sweeper.errors import SweeperError

RELATIVE, ROUNDED = 1e-9, 1e-4
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    yaml.YAMLError,
    zlib.error,
)
"""What data of an unexpected shape gives rise to."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that is not as it should be: where it stands, and what is wrong."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(kw_only=True)
class Tally:
    """Counts comparisons by kind; `left` says of what nothing could be made again, and why."""

    compared: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def equal(self, kind: str, where: str, what: str, said: Any, found: Any) -> bool:
        """Whether two values are the same, counted."""
        self.compared[kind] += 1
        if said == found:
            return True
        self.differ(where, f"{what} is {_short(said)}, found {_short(found)}")
        return False

    def number(self, kind: str, where: str, what: str, said: Any, found: float) -> bool:
        """Whether a number is the one found, within `RELATIVE`; counted."""
        self.compared[kind] += 1
        known = isinstance(said, int | float) and not isinstance(said, bool)
        if known and math.isclose(said, found, rel_tol=RELATIVE):
            return True
        self.differ(where, f"{what} is {_short(said)}, recomputed {found:.12g}")
        return False

    def close(
        self, kind: str, where: str, what: str, said: Any, found: float, within: float = ROUNDED
    ) -> None:
        """Whether a number is the one found, but for `within` of it or of 1; counted."""
        self.compared[kind] += 1
        known = isinstance(said, int | float) and not isinstance(said, bool)
        if not known or not math.isclose(said, found, rel_tol=within, abs_tol=within):
            self.differ(where, f"{what} is {_short(said)}, recomputed {found:.9g}")

    def numbers(
        self, kind: str, where: str, said: Mapping[str, Any], found: Mapping[str, float]
    ) -> None:
        """Whether two sets of named numbers are the same, counted one by one."""
        for name in sorted(found.keys() | said.keys()):
            if name not in said:
                self.differ(where, f"{name} is missing, recomputed {found[name]:.12g}")
            elif name not in found:
                self.differ(where, f"{name} is {_short(said[name])}, but follows from nothing")
            else:
                self.number(kind, where, name, said[name], found[name])

    def differ(self, where: str, what: str) -> None:
        """Note a difference."""
        self.differences.append(Difference(where=where, what=what))

    @contextmanager
    def looking(self, where: str) -> Iterator[None]:
        """Turn data of an unexpected shape into a difference: a journal may hold anything."""
        try:
            yield
        except SweeperError as error:
            self.differ(where, str(error))
        except UNREADABLE as error:
            self.differ(where, f"cannot be followed: {type(error).__name__}: {error}")


def _short(value: Any) -> str:
    text = f"{value:.12g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 120 else text[:119] + "…"
