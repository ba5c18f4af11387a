"""The claims of a study judged again from its results, and held against what is stated.

Every pair of results is looked at: one that has all of `when`, another that has `against` and,
where that does not speak of a key, `when`; nothing else that the study moves may differ.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.verify import ids
from sweeper.verify.pooling import NEEDS_METER, Pooled, canonical, group_of
from sweeper.verify.savings import Change, between, side
from sweeper.verify.student import quantile
from sweeper.verify.tally import Tally

GRAVEST = (
    "differs",
    "cannot be judged",
    "sign agrees only",
    "simulation",
    "estimate",
    "agrees",
)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class _Made:
    one: Pooled
    other: Pooled
    change: Change | None
    systematic: float | None


def check(
    results: Sequence[Pooled],
    said: Sequence[Mapping[str, Any]],
    study: Mapping[str, Any],
    tally: Tally,
) -> None:
    """Hold every judgement that is stated against the one made again.

    Those for which nothing is paired say so, and are not looked at further. The boards' gain error
    is taken from the statement: it stands beside the ratio and is none of its numbers.
    """
    for number, claim in enumerate(study.get("expect") or ()):
        where = f"claim {number}"
        with tally.looking(where):
            told = [each for each in said if each["claim"] == number]
            parts = _parts(results, claim, study)
            stated = {_place(each): each for each in told if each["id"] is not None}
            made = {}
            gains = {
                (each["id"], each["baseline"]): (each["change"] or {}).get("systematic")
                for each in told
            }
            for condition, pairs in parts:
                one = _judge(claim, [_with(pair, claim["metric"], gains) for pair in pairs])
                if one is not None:
                    made[canonical([condition, one[0].one.id, one[0].other.id])] = one
            tally.equal("claims", where, "pairs that decide", sorted(stated), sorted(made))
            for place in stated.keys() & made.keys():
                verdict, change = made[place][1], made[place][0].change
                tally.equal("claims", where, "verdict", stated[place]["verdict"], verdict)
                if change is not None:
                    ratio = math.exp(change.log)
                    tally.number("claims", where, "ratio", stated[place]["change"]["ratio"], ratio)


def _place(said: Mapping[str, Any]) -> str:
    return canonical([said["condition"], said["id"], said["baseline"]])


def _parts(
    results: Sequence[Pooled], claim: Mapping[str, Any], study: Mapping[str, Any]
) -> list[tuple[dict[str, Any], list[tuple[Pooled, Pooled]]]]:
    """The pairs of each traffic and origin; without those of which several stand against one."""
    free = {*claim["when"], *claim["against"]}
    for kind in ("axes", "conditions"):
        for label, written in (study.get(kind) or {}).items():
            for choice in ids.choices(study, label, written):
                if any(_related(key, name) for key in choice for name in free):
                    free = free | set(choice)
    wanted = {**claim["when"], **claim["against"]}
    found: dict[str, tuple[dict[str, Any], list[tuple[Pooled, Pooled]]]] = {}
    several = set()
    for one in results:
        condition = _kept(one.first["condition"], free)
        name = canonical([condition, _origin(one)])
        others = [
            other
            for other in results
            if other is not one
            and _has(other, wanted)
            and _origin(other) == _origin(one)
            and _fixed(other, free) == _fixed(one, free)
        ]
        if not _has(one, claim["when"]) or not others:
            continue
        if len(others) > 1:
            several.add(name)
        found.setdefault(name, (condition, []))[1].append((one, others[0]))
    return [part for name, part in found.items() if name not in several]


def _origin(result: Pooled) -> str:
    """What its numbers are of, apart from the condition, which a group's name begins with."""
    return canonical(json.loads(group_of(result))[1:])


def _related(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _kept(values: Mapping[str, Any], free: set[str]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if not any(_related(k, name) for name in free)}


def _fixed(result: Pooled, free: set[str]) -> str:
    return canonical(_kept({**result.first["chosen"], **result.first["condition"]}, free))


def _has(result: Pooled, wanted: Mapping[str, Any]) -> bool:
    tree = ids.nested(result.first["config"])
    return all(ids.get(tree, key) == value for key, value in wanted.items())


def _with(
    pair: tuple[Pooled, Pooled], metric: str, gains: Mapping[tuple[str, str], float | None]
) -> _Made:
    one, other = pair
    change = between(side(one, metric), side(other, metric))
    return _Made(one=one, other=other, change=change, systematic=gains.get((one.id, other.id)))


def _judge(claim: Mapping[str, Any], pairs: Sequence[_Made]) -> tuple[_Made, str] | None:
    """The pair that decides and its verdict; `None` where it is not known which one is meant."""
    text = claim["change"]
    numbers = [float(each) for each in _NUMBER.findall(text.replace("..", " "))]
    if text.startswith("up to"):
        known = [each for each in pairs if each.change is not None] or list(pairs)
        sign = math.copysign(1, numbers[0])
        widest = max(
            known, key=lambda each: (sign * each.change.log if each.change else 0, _ids(each))
        )
        return widest, _verdict(claim, widest, (numbers[0], numbers[0]))
    if ".." in text or text[:1] in "<>":
        if ".." in text:
            ends = (numbers[0], numbers[1])
        elif text.startswith("<"):
            ends = (-math.inf, numbers[0])
        else:
            ends = (numbers[0], math.inf)
        made = [(each, _verdict(claim, each, ends, band=True)) for each in pairs]
        return min(
            made,
            key=lambda each: (GRAVEST.index(each[1]), _room(each[0], ends), _ids(each[0])),
        )
    if len(pairs) > 1:
        return None
    return pairs[0], _verdict(claim, pairs[0], (numbers[0], numbers[0]))


def _room(made: _Made, ends: tuple[float, float]) -> float:
    if made.change is None:
        return -math.inf
    percent = 100 * math.expm1(made.change.log)
    return min(percent - ends[0], ends[1] - percent)


def _ids(made: _Made) -> tuple[str, str]:
    return made.one.id, made.other.id


def _verdict(
    claim: Mapping[str, Any],
    made: _Made,
    published: tuple[float, float],
    *,
    band: bool = False,
) -> str:
    metric, slack, change = claim["metric"], claim.get("tolerance_points", 0.0), made.change
    kinds = [
        each.kind
        for each in (made.one, made.other)
        if metric in NEEDS_METER or each.first["config"]["engine.kind"] == "simulated"
    ]
    doubted = [kind for kind in kinds if kind != "measured"]
    few = metric in made.one.undersampled | made.other.undersampled
    if change is not None and doubted:
        return doubted[0]
    if change is None or change.error is None or few:
        return "cannot be judged"
    half = quantile(0.975, change.freedom) * change.error
    gain = math.log((1 + (made.systematic or 0.0)) / (1 - (made.systematic or 0.0)))
    near = [100 * math.expm1(change.log + way * half) for way in (-1, 1)]
    far = [100 * math.expm1(change.log + way * (half + gain)) for way in (-1, 1)]
    bottom, top = published
    inside = bottom - slack <= far[0] and far[1] <= top + slack
    outside = far[1] < bottom - slack or far[0] > top + slack
    if band:
        return "agrees" if inside else "differs" if outside else "cannot be judged"
    if near[0] <= top <= near[1] or abs(100 * math.expm1(change.log) - top) <= slack:
        return "agrees"
    if far[0] <= top <= far[1]:
        return "cannot be judged"
    return "sign agrees only" if min(far[0] * top, far[1] * top) > 0 else "differs"
