"""A `Study` from the plain data of all its keys (pure)."""

import difflib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

from sweeper.published import FORMS, parse_change
from sweeper.results.metrics import METRICS
from sweeper.schema import INVALID, Faults, leaf_of, leaves, read, show, unknown, value
from sweeper.spec import Direction, ExpectSpec, Settings, Study
from sweeper.study.axes import Kind, is_traffic, read_axes, refuse_overlaps, refused
from sweeper.study.rules import check
from sweeper.study.selections import read_baseline, read_exclude, read_values

LONGEST_NAME = 100
REHEARSAL = ".rehearsal"
"""Ends the name of a study that is the rehearsal of another."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_SECTIONS = tuple(spec.name for spec in fields(Settings))
_PLAIN = ("demand", "search", "quality", "resources", "cluster", "tracking")


def assemble(given: Mapping[Any, Any], faults: Faults, *, rehearsal: bool = False) -> Study:
    """The study that the keys make; where there are faults it is not to be used.

    `rehearsal` allows the name of one.
    """
    given = {key: each for key, each in given.items() if each is not INVALID}
    known = [spec.name for spec in fields(Study) if spec.name != "settings"]
    for key in given:
        if key not in (*known, *_SECTIONS):
            faults.add(str(key), _unknown(str(key), ["extends", *_SECTIONS, *known]))
    sections = {name: given[name] for name in _SECTIONS if name in given}
    settings = read(Settings, _without_lists(sections, "", faults), "", faults) or Settings()
    axes = read_axes("axes", _or_empty(given, "axes", {}), settings, faults)
    conditions = read_axes("conditions", _or_empty(given, "conditions", {}), settings, faults)
    refuse_overlaps(axes, conditions, faults)
    hints = get_type_hints(Study)
    plain = {key: value(hints[key], given[key], key, faults) for key in _PLAIN if key in given}
    study = Study(
        name=_name(given.get("name", INVALID), faults, rehearsal=rehearsal),
        settings=settings,
        axes=axes,
        conditions=conditions,
        exclude=read_exclude(_or_empty(given, "exclude", []), faults),
        objectives=_objectives(given.get("objectives"), faults),
        limits=_limits(_or_empty(given, "limits", {}), faults),
        expect=_expect(_or_empty(given, "expect", []), faults),
        **{key: found for key, found in plain.items() if found is not INVALID},
    )
    study = replace(study, baseline=read_baseline(_or_empty(given, "baseline", {}), study, faults))
    check(study, faults)
    return study


def _or_empty(given: Mapping[Any, Any], key: str, empty: Any) -> Any:
    found = given.get(key)
    return empty if found is None else found


def _unknown(key: str, known: list[str]) -> str:
    if leaf_of(key) is not None:
        section, _, name = key.partition(".")
        return f"dotted keys go under axes: and their like; write {section}: {{{name}: ...}}"
    return unknown(key, known)


def _without_lists(given: Mapping[Any, Any], above: str, faults: Faults) -> dict[Any, Any]:
    """Settings without those that are given a list, each noted with where the list belongs."""
    kept = {}
    for name, inside in given.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(inside, Mapping) and key not in leaves(Settings):
            kept[name] = _without_lists(inside, key, faults)
        elif isinstance(inside, list) and key in leaves(Settings):
            kind: Kind = "conditions" if is_traffic(key) else "axes"
            why = refused(kind, key)
            way = f"it {why}" if why else f"its values go under {kind}: as {key}: [...]"
            faults.add(key, f"a list given; {way}")
        else:
            kept[name] = inside
    return kept


def _name(given: Any, faults: Faults, *, rehearsal: bool) -> str:
    found = value(str, given, "name", faults)
    if found is INVALID:
        return "study"
    name = unicodedata.normalize("NFC", str(found))
    rehearsed = name.removesuffix(REHEARSAL) if rehearsal else name
    marks = {each for each in name if not _allowed(each)}
    if marks:
        shown = " ".join(sorted(repr(each) for each in marks))
        faults.add("name", f"{show(name)} has {shown}, wanted: letters, digits, - _ and .")
    elif len(rehearsed) > LONGEST_NAME or len(rehearsed.encode()) > 2 * LONGEST_NAME:
        faults.add("name", f"has {len(name)} characters, at most {LONGEST_NAME} wanted")
    elif name.startswith((".", "-")) or name.endswith("."):
        faults.add("name", f"{show(name)} begins with . or -, or ends with .: it names a folder")
    elif _RESERVED.fullmatch(name):
        faults.add("name", f"{show(name)} is reserved on Windows: take another")
    elif rehearsed.endswith(REHEARSAL):
        faults.add("name", f"{show(name)} ends like a rehearsal of another study: take another")
    return name


def _allowed(character: str) -> bool:
    return (
        character in "-_."
        or unicodedata.category(character)[:1] in "LM"
        or (unicodedata.category(character) == "Nd")
    )


def _metric(name: Any, where: str, faults: Faults) -> bool:
    if name in METRICS:
        return True
    near = difflib.get_close_matches(str(name), METRICS, n=3)
    said = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(METRICS)}"
    faults.add(where, f"unknown metric; {said}")
    return False


def _objectives(given: Any, faults: Faults) -> dict[str, Direction]:
    if not isinstance(given, Mapping) or not given:
        way = f"a mapping of metrics to {' or '.join(get_args(Direction))}"
        faults.add("objectives", f"{show(given)} given, wanted: {way}")
        return {}
    found = {}
    for name, each in given.items():
        where = f"objectives.{name}"
        direction = value(Direction, each, where, faults)
        if _metric(name, where, faults) and direction is not INVALID:
            found[name] = direction
    return found


def _limits(given: Any, faults: Faults) -> dict[str, float]:
    if not isinstance(given, Mapping):
        faults.add("limits", f"{show(given)} given, wanted: a mapping of metrics to numbers")
        return {}
    found = {}
    for name, each in given.items():
        where = f"limits.{name}"
        bound = value(float, each, where, faults, {"above": 0})
        if _metric(name, where, faults) and bound is not INVALID:
            found[name] = bound
    return found


def _expect(given: Any, faults: Faults) -> tuple[ExpectSpec, ...]:
    if not isinstance(given, list):
        faults.add("expect", f"{show(given)} given, wanted: a list of claims")
        return ()
    found = []
    for index, each in enumerate(given):
        where = f"expect[{index}]"
        claim = read(ExpectSpec, each, where, faults)
        keys = each if isinstance(each, Mapping) else {}
        sides = {
            side: read_values(keys[side], f"{where}.{side}", faults)
            for side in ("when", "against")
            if isinstance(keys.get(side), Mapping)
        }
        if isinstance(keys.get("metric"), str):
            _metric(keys["metric"], f"{where}.metric", faults)
        if claim is not None:
            if parse_change(claim.change) is None:
                said = f"{show(claim.change)} given, wanted: a change in per cent, such as {FORMS}"
                faults.add(f"{where}.change", said)
            when = sides.get("when", claim.when)
            found.append(replace(claim, when=when, against=sides.get("against", claim.against)))
    return tuple(found)
