"""Axes and conditions from plain data (pure).

An axis is written `dotted.key: [values]`, or `label: [mappings]` where several keys move
together; a section's name as label (`engine: [{kind: vllm}, ...]`) makes its keys relative. All
of `axes`, or of `conditions`, may also be one list of mappings.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import combinations
from typing import Any, Literal

from sweeper.schema import INVALID, Faults, leaf_of, leaves, lookup, overlap, show, unknown, value
from sweeper.spec import Axis, Settings, Study, Values

Kind = Literal["axes", "conditions"]
TRAFFIC = frozenset(key for key in leaves(Settings) if key.startswith("workload.")) - {
    "workload.batching",
    "workload.batch_size",
    "workload.decoding",
}
"""What traffic imposes: nobody chooses it, so each of its values has a front of its own."""
OF_THE_STUDY = ("measure.launches", "measure.finalists")
"""Settings that are no part of a point."""
_OUTSIDE = frozenset(spec.name for spec in fields(Study)) - {"settings"}


def is_traffic(key: str) -> bool:
    """Whether a key belongs under `conditions` and not under `axes`."""
    return any(overlap(each, key) for each in TRAFFIC)


def read_axes(kind: Kind, given: Any, base: Settings, faults: Faults) -> tuple[Axis, ...]:
    """The axes as written; each choice names every key of its axis, from `base` where left out.

    A choice with a fault is noted and left out.
    """
    if isinstance(given, list):
        given = {kind: given} if given else {}
    if not isinstance(given, Mapping):
        faults.add(
            kind, f"{show(given)} given, wanted: a mapping of dotted keys to lists of values"
        )
        return ()
    found = []
    for label, written in given.items():
        where = kind if label == kind else f"{kind}.{label}"
        if not isinstance(label, str):
            faults.add(where, f"{show(label)} is no dotted key")
        elif written is INVALID:
            continue
        elif not isinstance(written, list):
            way = f"write [{show(written)}] for an axis, or set {label} outside of {kind}"
            faults.add(where, f"{show(written)} given, wanted: a list of values; {way}")
        elif not written:
            faults.add(where, "has no values: give it some, or leave it out")
        else:
            found.append(_axis(kind, label, written, where, base, faults))
    return tuple(axis for axis in found if axis.choices)


def refuse_overlaps(axes: Iterable[Axis], conditions: Iterable[Axis], faults: Faults) -> None:
    """Note every key that two axes move."""
    places = [(f"axes.{axis.label}", axis) for axis in axes]
    places += [(f"conditions.{axis.label}", axis) for axis in conditions]
    for (place, axis), (other, later) in combinations(places, 2):
        for key in moved(later):
            if any(overlap(key, each) for each in moved(axis)):
                faults.add(other, f"moves {key}, which {place} moves too: keep one of them")


def moved(axis: Axis) -> tuple[str, ...]:
    """The keys that an axis moves."""
    return tuple(axis.choices[0])


def _axis(
    kind: Kind, label: str, written: list[Any], where: str, base: Settings, faults: Faults
) -> Axis:
    if leaf_of(label) is not None:
        why = refused(kind, label)
        if why:
            faults.add(where, why)
            return Axis(label=label, choices=())
        choices = [
            _choice({label: each}, {label: f"{where}[{index}]"}, faults)
            for index, each in enumerate(written)
        ]
    elif not all(isinstance(each, Mapping) for each in written) or not _is_label(label, written):
        faults.add(where, refused(kind, label) or _no_axis(label))
        return Axis(label=label, choices=())
    else:
        choices = []
        for index, each in enumerate(written):
            place = f"{where}[{index}]"
            keys = {_absolute(label, str(key)): key for key in each}
            named = {key: each[key_written] for key, key_written in keys.items()}
            for key, key_written in keys.items():
                if why := refused(kind, key):
                    faults.add(f"{place}.{key_written}", why)
                    named.pop(key)
            places = {key: f"{place}.{key_written}" for key, key_written in keys.items()}
            choices.append(_choice(named, places, faults))
    return _complete(label, choices, where, base, faults)


def _choice(named: Mapping[str, Any], places: Mapping[str, str], faults: Faults) -> Values | None:
    found = {}
    for key, given in named.items():
        leaf = leaf_of(key)
        if leaf is None:
            faults.add(places[key], unknown(key, leaves(Settings)))
            continue
        found[key] = value(leaf.hint, given, places[key], faults, leaf.bounds)
    return found if len(found) == len(named) and INVALID not in found.values() else None


def _complete(
    label: str, choices: Iterable[Values | None], where: str, base: Settings, faults: Faults
) -> Axis:
    kept = [choice for choice in choices if choice is not None]
    keys = list(dict.fromkeys(key for choice in kept for key in choice))
    for key, other in combinations(keys, 2):
        if overlap(key, other):
            faults.add(where, f"moves {key} and {other}, and one is part of the other")
            return Axis(label=label, choices=())
    found: dict[str, Values] = {}
    for choice in kept:
        whole = {key: choice[key] if key in choice else lookup(base, key) for key in keys}
        identity = json.dumps(whole, sort_keys=True)
        if identity in found:
            faults.add(where, f"has {_said(whole)} twice")
        found[identity] = whole
    return Axis(label=label, choices=tuple(found.values()) if keys else ())


def _said(choice: Values) -> str:
    return ", ".join(f"{key}={json.dumps(each)}" for key, each in choice.items())


def refused(kind: Kind, key: str) -> str | None:
    """Why a key cannot be moved here, if it cannot."""
    if any(overlap(each, key) for each in OF_THE_STUDY):
        return f"is set once for a study; set {key} outside of {kind}"
    if key.partition(".")[0] in _OUTSIDE:
        return f"belongs to the study as a whole; set {key} outside of {kind}"
    if kind == "conditions":
        return None
    if leaf_of(key) is not None and is_traffic(key):
        return "is imposed by traffic, not chosen: move it to conditions:"
    if key.partition(".")[0] in {"meter", "measure", "replay"}:
        return (
            "is how a point is measured, not a choice; set it once for the study, "
            "or under conditions: for a front of its own"
        )
    return None


def _no_axis(label: str) -> str:
    below = [key for key in leaves(Settings) if key.startswith(f"{label}.")]
    if below:
        return f"is a section: name a key of it, such as {below[0]}, or give a list of mappings"
    return unknown(label, leaves(Settings))


def _is_label(label: str, written: Iterable[Mapping[Any, Any]]) -> bool:
    """Whether a label that is no key is meant as one: some key below it is known."""
    keys = [_absolute(label, str(key)) for each in written for key in each]
    return any(leaf_of(key) is not None for key in keys) or not keys


def _absolute(label: str, key: str) -> str:
    relative = f"{label}.{key}"
    return relative if leaf_of(relative) is not None else key
