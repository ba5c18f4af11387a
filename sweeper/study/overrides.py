"""One study file laid over another, and `key=value` words over both, as plain data (pure).

A section's keys are laid over one by one. Every other value is replaced whole: `axes`, `exclude`,
`limits` and their like, and mappings that are one setting, such as `workload.arrival`. A setting
laid over replaces the axis or condition that moved it before, and then leaves the baseline.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from sweeper.schema import leaf_of, leaves, tree
from sweeper.spec import Settings, Study
from sweeper.study.axes import is_traffic

OPEN = ("axes", "conditions", "baseline", "objectives", "limits")
"""Mappings of a study with keys of the study's own."""
_OPTIONAL = {spec.name for spec in fields(Study) if spec.default is None}


def defaults() -> dict[str, Any]:
    """The keys of a study file that have a default, with it."""
    whole = tree(Study(name="study", settings=Settings()))
    return {**whole.pop("settings"), **{key: whole[key] for key in whole if key != "name"}}


def study_keys() -> tuple[str, ...]:
    """Every dotted key of a study file."""
    return tuple(key.removeprefix("settings.") for key in leaves(Study))


def is_known(key: str) -> bool:
    """Whether a dotted key, or a section, can be set in a study."""
    first, _, rest = key.partition(".")
    if leaf_of(key) is not None or (first in OPEN and rest):
        return True
    return any(known == key or known.startswith(f"{key}.") for known in study_keys())


def lay(over: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A study file's keys over those of the file it extends."""
    laid = dict(base)
    replaced = {}
    for first, given in over.items():
        if "." in str(first) or (leaf_of(str(first)) is None and not _is_section(str(first))):
            replaced[first] = given
            continue
        for key, each in _below(first, given):
            laid = put(laid, key, each)
    return {**laid, **replaced}


def override(laid: Mapping[str, Any], key: str, given: Any) -> dict[str, Any]:
    """A study's keys with one set, or swept where a list is given for a setting."""
    result = dict(laid)
    for each, inside in _below(key, given):
        change = sweep if isinstance(inside, list) and leaf_of(each) is not None else put
        result = change(result, each, inside)
    return result


def put(laid: Mapping[str, Any], key: str, given: Any) -> dict[str, Any]:
    """A study's keys with one set, and with what moved it before taken away."""
    first, _, rest = key.partition(".")
    if first in OPEN and rest:
        inside = _labelled(laid.get(first), first)
        return {**laid, first: {**inside, rest: given}}
    result = _nested(laid, key.split("."), given)
    if leaf_of(key) is None:
        return result
    for kind in ("axes", "conditions"):
        if kind in result:
            result[kind] = _without(result[kind], key)
    if isinstance(result.get("baseline"), Mapping):
        result["baseline"] = {
            each: value for each, value in result["baseline"].items() if not _within(each, key)
        }
    return result


def sweep(laid: Mapping[str, Any], key: str, values: list[Any]) -> dict[str, Any]:
    """A study's keys with one swept, in the place of what moved it before."""
    result = dict(laid)
    kind = "conditions" if is_traffic(key) or _moves(laid.get("conditions"), key) else "axes"
    for each in ("axes", "conditions"):
        if each == kind:
            written = _labelled(result.get(each), each)
            kept = written if key in written else _labelled(_without(written, key), each)
            result[each] = {**kept, key: values}
        elif each in result:
            result[each] = _without(result[each], key)
    return result


def swept_above(laid: Mapping[str, Any], key: str) -> str | None:
    """The key above `key` that an axis replaces whole, if one does."""
    for kind in ("axes", "conditions"):
        for above in _keys(laid.get(kind), kind):
            if above != key and _within(key, above) and leaf_of(above) is not None:
                return above
    return None


def _is_section(key: str) -> bool:
    return any(known.startswith(f"{key}.") for known in study_keys())


def _below(key: str, given: Any) -> Iterator[tuple[str, Any]]:
    """Every dotted key that a section sets; one left empty sets none."""
    if _is_section(key) and isinstance(given, Mapping):
        for name, each in given.items():
            yield from _below(f"{key}.{name}", each)
    elif given is not None or key in _OPTIONAL or not _is_section(key):
        yield key, given


def _nested(laid: Any, names: list[str], given: Any) -> dict[str, Any]:
    inside = laid if isinstance(laid, Mapping) else {}
    name, *rest = names
    return {**inside, name: _nested(inside.get(name), rest, given) if rest else given}


def _labelled(written: Any, kind: str) -> dict[str, Any]:
    if isinstance(written, list):
        return {kind: written} if written else {}
    return dict(written) if isinstance(written, Mapping) else {}


def _within(key: Any, above: str) -> bool:
    return isinstance(key, str) and (key == above or key.startswith(f"{above}."))


def _without(written: Any, key: str) -> Any:
    """Axes as written, without a key and what is below it."""
    if isinstance(written, list):
        return _choices(written, "", key)
    if not isinstance(written, Mapping):
        return written
    kept = {}
    for label, values in written.items():
        if _within(label, key):
            continue
        left = _choices(values, str(label), key) if isinstance(values, list) else values
        if left or left == values:
            kept[label] = left
    return kept


def _choices(values: list[Any], label: str, key: str) -> list[Any]:
    """An axis's mappings without a key; those left empty, or alike then, are left out."""
    if leaf_of(label) is not None:
        return values
    kept: list[Any] = []
    changed = False
    for choice in values:
        left = choice
        if isinstance(choice, Mapping):
            left = {
                name: given
                for name, given in choice.items()
                if not _within(name, key) and not _within(f"{label}.{name}", key)
            }
            changed = changed or left != choice
        if not (changed and (not left or left in kept)):
            kept.append(left)
    return kept


def _keys(written: Any, kind: str) -> Iterator[str]:
    """The dotted keys that axes as written move."""
    for label, values in _labelled(written, kind).items():
        if leaf_of(str(label)) is not None:
            yield str(label)
        elif isinstance(values, list):
            for choice in values:
                for name in choice if isinstance(choice, Mapping) else ():
                    relative = f"{label}.{name}"
                    yield relative if leaf_of(relative) is not None else str(name)


def _moves(written: Any, key: str) -> bool:
    return any(_within(each, key) for each in _keys(written, ""))
