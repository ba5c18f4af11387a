"""Which points an exclusion, a baseline or a claim means, from plain data (pure)."""

import math
from collections.abc import Mapping
from typing import Any

from sweeper.plan import COMPARISONS
from sweeper.schema import INVALID, Faults, leaf_of, leaves, show, unknown, value
from sweeper.spec import Settings, Study, Values
from sweeper.study.axes import moved


def read_values(given: Any, where: str, faults: Faults) -> dict[str, Any]:
    """Dotted keys of the settings with values of their types; faulty ones are left out."""
    if not isinstance(given, Mapping):
        faults.add(where, f"{show(given)} given, wanted: a mapping of dotted keys to values")
        return {}
    found = {}
    for key, each in given.items():
        leaf = leaf_of(key) if isinstance(key, str) else None
        if leaf is None:
            faults.add(f"{where}.{key}", unknown(str(key), leaves(Settings)))
            continue
        read = value(leaf.hint, each, f"{where}.{key}", faults, leaf.bounds)
        if read is not INVALID:
            found[key] = read
    return found


def read_exclude(given: Any, faults: Faults) -> tuple[Values, ...]:
    """Entries of exact values and comparisons, such as `{workload.batch_size: '>256'}`."""
    if not isinstance(given, list):
        faults.add("exclude", f"{show(given)} given, wanted: a list of mappings")
        return ()
    found: list[Values] = []
    for index, entry in enumerate(given):
        where = f"exclude[{index}]"
        if entry is INVALID:
            continue
        if not isinstance(entry, Mapping) or not entry:
            said = "an empty entry" if entry == {} else show(entry)
            faults.add(where, f"{said} given, wanted: a mapping of dotted keys to values")
            continue
        clauses = {str(key): _clause(str(key), each, where, faults) for key, each in entry.items()}
        if INVALID not in clauses.values():
            found.append(clauses)
    return tuple(found)


def read_baseline(given: Any, study: Study, faults: Faults) -> dict[str, Any]:
    """Values that one choice of each axis they belong to has."""
    found = read_values(given, "baseline", faults)
    if faults.touch("axes"):
        return found
    for key in found:
        axis = next((each for each in study.axes if key in moved(each)), None)
        if axis is None:
            swept = ", ".join(key for each in study.axes for key in moved(each)) or "none"
            faults.add(f"baseline.{key}", f"is on no axis; keys on one: {swept}")
            continue
        wanted = {each: found[each] for each in moved(axis) if each in found}
        if not any(all(choice[each] == wanted[each] for each in wanted) for choice in axis.choices):
            values = ", ".join(dict.fromkeys(str(show(choice[key])) for choice in axis.choices))
            said = f"{show(found[key])} is not on its axis, which has {values}"
            faults.add(f"baseline.{key}", f"{said}; savings are stated against a value on the axis")
    return found


def _clause(key: str, given: Any, where: str, faults: Faults) -> Any:
    place = f"{where}.{key}"
    leaf = leaves(Settings).get(key)
    if leaf is None:
        faults.add(place, unknown(key, leaves(Settings)))
        return INVALID
    text = given.strip() if isinstance(given, str) else ""
    sign = next((each for each in COMPARISONS if text.startswith(each)), None)
    if sign is None:
        return value(leaf.hint, given, place, faults, leaf.bounds)
    rest = text.removeprefix(sign).strip()
    if leaf.is_number:
        if _number(rest) is None:
            faults.add(place, f"{show(given)} compares with no number")
            return INVALID
        return f"{sign}{rest}"
    scratch = Faults()
    if sign != "!=" or value(leaf.hint, rest, place, scratch, leaf.bounds) is INVALID:
        faults.add(place, f"{show(given)}: {key} is no number; give the value itself, or '!=word'")
        return INVALID
    return f"{sign}{rest}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
