"""Ids of points made again from their settings, and the points that a study's text asks for.

An id is the beginning of the SHA-256 of everything that is measured and how, as JSON with sorted
keys: the sections of a point's settings, without how many launches, and the type of its GPUs.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

SECTIONS = ("model", "engine", "gpu", "workload", "measure", "meter")
OF_A_CONFIGURATION = ("model", "engine", "gpu")
GROUPS = frozenset({*SECTIONS, "measure.warmup", "measure.finalists"} - {"meter"})
"""What holds keys and is none."""
NOT_OF_A_POINT = ("launches", "finalists")
_COMPARISON = re.compile(r"\s*(>=|<=|!=|>|<)\s*(.+?)\s*")
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections within sections."""
    found: dict[str, Any] = {}
    for key, value in dotted.items():
        put(found, key, value)
    return found


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; what is missing on the way there is made."""
    *above, last = key.split(".")
    for name in above:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[last] = deepcopy(value)


def get(tree: Any, key: str) -> Any:
    """The value of a dotted key; `None` where there is none."""
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def of_point(settings: Mapping[str, Any], accelerator: str | None) -> str:
    """The id of a point with these sections."""
    told = {name: settings[name] for name in SECTIONS}
    told["measure"] = {k: v for k, v in told["measure"].items() if k not in NOT_OF_A_POINT}
    if told["measure"].get("goodput") is None:
        told["measure"].pop("goodput", None)
    return _hash({**told, "accelerator": accelerator})


def of_configuration(settings: Mapping[str, Any], accelerator: str | None) -> str:
    """The id of what needs an engine start."""
    told = {name: settings[name] for name in OF_A_CONFIGURATION}
    return _hash({**told, "accelerator": accelerator})


def asked_for(study: Mapping[str, Any]) -> set[str]:
    """The ids of all points of a study, from its text as resolved."""
    base = {name: study[name] for name in SECTIONS}
    accelerator = study["resources"]["accelerator"]
    found = set()
    axes = [*study["conditions"].items(), *study["axes"].items()]
    for combination in itertools.product(*(choices(base, *axis) for axis in axes)):
        settings = deepcopy(base)
        moved = {key: value for choice in combination for key, value in choice.items()}
        for key in sorted(moved, key=len):
            put(settings, key, moved[key])
        if not any(_excluded(entry, settings) for entry in study["exclude"]):
            found.add(of_point(settings, accelerator))
    return found


def choices(base: Mapping[str, Any], label: str, written: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The choices of an axis, each as dotted keys: a label that is no key names several."""
    single = _is_key(base, label)
    return [{label: each} if single else each for each in written]


def _is_key(base: Mapping[str, Any], label: str) -> bool:
    if label in GROUPS:
        return False
    above = base
    place = ""
    for name in label.split("."):
        place = f"{place}.{name}".lstrip(".")
        if name not in (above or ()):
            # Below a mapping such as engine.options anything is a key, in a section nothing new.
            return place.rpartition(".")[0] not in {"", *GROUPS}
        above = above[name]
    return True


def _excluded(entry: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(_meets(wanted, get(settings, key)) for key, wanted in entry.items())


def _meets(wanted: Any, value: Any) -> bool:
    match = _COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        return bool(wanted == value)
    sign, bound = match.groups()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return sign == "!=" and bound != str(value)
    return _HOLDS[sign](value, float(bound))


def _hash(told: Mapping[str, Any]) -> str:
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
