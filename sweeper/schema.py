"""Specs from plain data and back, by their type hints (pure).

Every fault is collected under its dotted key, so that a study file is corrected in one go.
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from sweeper.errors import StudyError
from sweeper.spec import Settings, Values

Spec = TypeVar("Spec")
INVALID: Any = object()
"""Stands where a fault was found and noted."""
LARGEST = 1e300
"""No quantity is larger; an infinity or a NaN is none."""
MANY = 30
"""Keys that a message does not list one by one."""


class Faults:
    """What is wrong, by dotted key.

    `written` gives the text of a key's value as the person wrote it, where that is known.
    """

    def __init__(self, written: Callable[[str], str | None] = lambda where: None) -> None:
        self.found: list[tuple[str, str]] = []
        self.written = written

    def add(self, where: str, message: str) -> None:
        """Note a fault once."""
        if (where, message) not in self.found:
            self.found.append((where, message))

    def touch(self, key: str) -> bool:
        """Whether a fault is at, above or below a key."""
        return any(overlap(where, key) for where, _ in self.found)


@dataclass(frozen=True)
class Leaf:
    """A key that is set as one value: its type and bounds."""

    hint: Any
    bounds: Mapping[str, Any]

    @property
    def is_mapping(self) -> bool:
        """Whether keys may follow below it, such as `engine.options.seed`."""
        return any(_mapping_of(member) is not None for member in _members(self.hint))

    @property
    def is_number(self) -> bool:
        """Whether values can be compared by size."""
        return any(member in (int, float) for member in _members(self.hint))

    @property
    def below(self) -> "Leaf":
        """What one value of a mapping must be."""
        inner = next(of for member in _members(self.hint) if (of := _mapping_of(member)))
        return Leaf(inner[1], {})


def read(cls: type[Spec], given: Any, where: str, faults: Faults) -> Spec | None:
    """A spec from nested plain data; a faulty value is noted and its default taken.

    `None` where there is no such default, or `given` is no mapping.
    """
    kind: Any = cls
    hints = _hints(kind)
    if not isinstance(given, Mapping):
        if given is not INVALID:
            faults.add(where, f"{show(given)} given, wanted: {describe(kind, {})}")
        return None
    values: dict[str, Any] = {}
    complete = True
    for key in given:
        if key not in hints:
            faults.add(_join(where, key), unknown(_join(where, key), [*_dotted(cls, where)]))
    for spec in fields(kind):
        place = _join(where, spec.name)
        if spec.name in given:
            found = value(hints[spec.name], given[spec.name], place, faults, spec.metadata)
            if found is not INVALID:
                values[spec.name] = found
        elif _required(spec):
            faults.add(place, f"missing: {describe(hints[spec.name], spec.metadata)}")
        complete &= spec.name in values or not _required(spec)
    return cls(**values) if complete else None


def read_kind(kinds: Mapping[str, type[Spec]], given: Mapping[str, Any], where: str) -> Spec:
    """The spec of which `given` names the kind, of a value that a study file has.

    Raises:
        StudyError: there is no such kind, or it has no such keys or values.
    """
    cls = kinds.get(str(given.get("kind")))
    if cls is None:
        raise StudyError(f"{where}.kind: {given.get('kind')!r}; {', '.join(kinds)}")
    faults = Faults()
    found = read(cls, {key: each for key, each in given.items() if key != "kind"}, where, faults)
    if found is None or faults.found:
        raise StudyError(f"{place}: {message}" for place, message in faults.found)
    return found


def value(
    hint: Any, given: Any, where: str, faults: Faults, bounds: Mapping[str, Any] | None = None
) -> Any:
    """`given` as the type wanted, or `INVALID` with the fault noted; whole numbers become floats.

    `bounds` are a field's metadata: `min`, `max` (inclusive) and `above`.
    """
    limits = bounds or {}
    if given is INVALID:
        return INVALID
    for member in _members(hint):
        section = _section(member)
        if section is not None and (isinstance(given, Mapping) or len(_members(hint)) == 1):
            found = read(section, {} if given is None else given, where, faults)
            return INVALID if found is None else found
        inner = _mapping_of(member)
        if inner is not None and isinstance(given, Mapping):
            return _mapping(inner[1], given, where, faults)
        if member is Any:
            return _plain(given, where, faults)
        found = _scalar(member, given, limits)
        if found is not INVALID:
            return found
    faults.add(where, _mismatch(hint, given, limits, faults.written(where)))
    return INVALID


def tree(instance: Any) -> Any:
    """A spec as nested plain data; `read` gives an equal one back."""
    if is_dataclass(instance):
        return {spec.name: tree(getattr(instance, spec.name)) for spec in fields(instance)}
    if isinstance(instance, Mapping):
        return {key: tree(each) for key, each in instance.items()}
    if isinstance(instance, list | tuple):
        return [tree(each) for each in instance]
    return instance


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting under its dotted key; `engine.options` and its like stay one value."""
    return {key: tree(lookup(settings, key)) for key in leaves(Settings)}


def lookup(settings: Settings, key: str) -> Any:
    """The value of a dotted key; `None` for a key below a mapping that does not have it."""
    found: Any = settings
    for name in key.split("."):
        if is_dataclass(found):
            found = getattr(found, name)
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


def with_values(settings: Settings, values: Values) -> Settings:
    """The settings with dotted keys set.

    Raises:
        StudyError: an unknown key or a value of the wrong type, all at once.
    """
    faults = Faults()
    for key in sorted(values, key=len):
        leaf = leaf_of(key)
        if leaf is None:
            faults.add(key, unknown(key, leaves(Settings)))
            continue
        found = value(leaf.hint, values[key], key, faults, leaf.bounds)
        if found is not INVALID:
            settings = _set(settings, key.split("."), found)
    if faults.found:
        raise StudyError(f"{where}: {message}" for where, message in faults.found)
    return settings


@cache
def leaves(cls: Any) -> Mapping[str, Leaf]:
    """The dotted keys of a spec that are set as one value, in the order they are declared."""
    found: dict[str, Leaf] = {}
    for spec in fields(cls):
        hint = _hints(cls)[spec.name]
        section = next((each for each in map(_section, _members(hint)) if each), None)
        if section is None:
            found[spec.name] = Leaf(hint, spec.metadata)
        else:
            found |= {f"{spec.name}.{key}": leaf for key, leaf in leaves(section).items()}
    return found


def leaf_of(key: str, cls: Any = Settings) -> Leaf | None:
    """What a dotted key may be set to; `None` where there is no such key."""
    known = leaves(cls)
    if key in known:
        return known[key]
    names = key.split(".")
    for end in range(len(names) - 1, 0, -1):
        above = known.get(".".join(names[:end]))
        if above is not None and above.is_mapping and all(names):
            return above.below if end == len(names) - 1 else Leaf(Any, {})
    return None


def overlap(one: str, other: str) -> bool:
    """Whether two keys are the same, or one is below the other."""
    short, long = sorted((one, other), key=len)
    return long == short or long.startswith((f"{short}.", f"{short}["))


def unknown(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is none of `known`, with those nearest to it."""
    keys = list(known)
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    near = near or [each for each in leaves(Settings) if each.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(key, leaves(Settings), n=1, cutoff=0.75)
    if near:
        return f"unknown key; did you mean {' or '.join(near)}?"
    firsts = dict.fromkeys(each.partition(".")[0] for each in keys)
    return f"unknown key; known here: {', '.join(keys if len(keys) < MANY else firsts)}"


def show(given: Any) -> str:
    """A value as a message names it."""
    if isinstance(given, Mapping):
        return "a mapping"
    if isinstance(given, list | tuple):
        return "a list"
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, str):
        return f'"{given[:57]}..."' if len(given) > 60 else f'"{given}"'
    return str(given)


def describe(hint: Any, bounds: Mapping[str, Any]) -> str:
    """What is allowed, in words."""
    return " or ".join(_word(member, bounds) for member in _members(hint))


def _word(member: Any, bounds: Mapping[str, Any]) -> str:
    if get_origin(member) is Literal:
        return ", ".join(map(str, get_args(member)))
    section = _section(member)
    if section is not None:
        return "{" + ", ".join(_hints(section)) + "}"
    if member in (int, float):
        noun = "a whole number" if member is int else "a number"
        signs = {"min": "at least", "above": "above", "max": "at most"}
        said = " and ".join(f"{signs[name]} {bound}" for name, bound in bounds.items())
        return f"{noun} {said}".strip()
    known = {bool: "true or false", str: "a word", types.NoneType: "null", Any: "a value"}
    return known.get(member, "a mapping")


def _mismatch(hint: Any, given: Any, bounds: Mapping[str, Any], written: str | None) -> str:
    said = f"{show(given)} given, wanted: {describe(hint, bounds)}"
    members = _members(hint)
    words = any(member is str or get_origin(member) is Literal for member in members)
    text = str(show(given)) if written is None else written
    if words and isinstance(given, bool | int | float):
        reads = f"YAML reads {text} as {show(given)}; " if text != show(given) else ""
        return f'{said}; {reads}if the word is meant, quote it: "{text}"'
    number = _number(given) if isinstance(given, str) else None
    if any(
        _scalar(member, number, bounds) is not INVALID for member in members if number is not None
    ):
        return f"{said}; without the quotes: {str(given).strip()}"
    if isinstance(given, float) and given.is_integer() and int in members:
        return f"{said}; write {int(given)}"
    return said


def _scalar(member: Any, given: Any, bounds: Mapping[str, Any]) -> Any:
    if get_origin(member) is Literal:
        allowed = [each for each in get_args(member) if each == given]
        return given if allowed and type(allowed[0]) is type(given) else INVALID
    if member in (types.NoneType, bool, str):
        empty = isinstance(given, str) and not given.strip()
        return given if isinstance(given, member) and not empty else INVALID
    if member in (int, float) and isinstance(given, int | float) and not isinstance(given, bool):
        whole = member is float or isinstance(given, int)
        return member(given) if whole and _within(given, bounds) else INVALID
    return INVALID


def _within(given: float, bounds: Mapping[str, Any]) -> bool:
    least, most = bounds.get("min", -LARGEST), bounds.get("max", LARGEST)
    return bool(least <= given <= most and ("above" not in bounds or given > bounds["above"]))


def _mapping(inner: Any, given: Mapping[Any, Any], where: str, faults: Faults) -> Any:
    found = {}
    for key, each in given.items():
        if isinstance(key, str):
            found[key] = value(inner, each, _join(where, key), faults)
        else:
            faults.add(where, f'the key {show(key)} is not a word, quote it: "{key}"')
            return INVALID
    return INVALID if INVALID in found.values() else found


def _plain(given: Any, where: str, faults: Faults) -> Any:
    if isinstance(given, Mapping):
        return _mapping(Any, given, where, faults)
    if isinstance(given, list):
        found = [_plain(each, f"{where}[{i}]", faults) for i, each in enumerate(given)]
        return INVALID if any(each is INVALID for each in found) else found
    if given is INVALID or given is None or isinstance(given, bool | int | str):
        return given
    if isinstance(given, float) and math.isfinite(given):
        return given
    faults.add(where, f"{show(given)} given, wanted: a word, a number, true, false or null")
    return INVALID


def _set(instance: Any, names: list[str], found: Any) -> Any:
    if not names:
        return found
    name, *rest = names
    if is_dataclass(instance) and not isinstance(instance, type):
        return replace(instance, **{name: _set(getattr(instance, name), rest, found)})
    mapping = instance if isinstance(instance, Mapping) else {}
    return {**mapping, name: _set(mapping.get(name), rest, found)}


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _section(member: Any) -> Any:
    return member if isinstance(member, type) and is_dataclass(member) else None


def _mapping_of(member: Any) -> tuple[Any, ...] | None:
    return get_args(member) if get_origin(member) is Mapping else None


@cache
def _hints(cls: Hashable) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _dotted(cls: Any, where: str) -> list[str]:
    return [_join(where, name) for name in _hints(cls)]


def _required(spec: Field[Any]) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
