"""Claims of others judged by a study's own results (pure).

A claim says by how much a metric changes from `against` to `when`. What `against` does not name is
as in `when`; every other choice, and the traffic, is the same on both sides. The change is that of
`answers/change.py`, with its interval: over blocks where it is paired, else over launches.

| a claim of | agrees | differs |
|---|---|---|
| one value | it lies in the interval, or within the claim's tolerance of the estimate | else |
| a bound or a range | the whole interval lies in it | the whole interval lies outside |

Where one value differs and the whole interval is on its side of no change, the *sign agrees only*.
What the gain error of different boards could alone decide, what has no interval, what is simulated
or estimated: none of these agrees or differs, whatever the numbers are.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeper.answers.change import Change, change
from sweeper.answers.front import Group, comparable
from sweeper.answers.results import Result, canonical, results, settled
from sweeper.answers.savings import launched
from sweeper.published import Published, parse_change
from sweeper.results.metrics import is_energy
from sweeper.results.record import Record
from sweeper.schema import overlap
from sweeper.spec import ExpectSpec, Study, Values

Verdict = Literal[
    "agrees", "differs", "sign agrees only", "cannot be judged", "simulation", "estimate"
]
_WORST: Sequence[Verdict] = (
    "differs",
    "cannot be judged",
    "sign agrees only",
    "simulation",
    "estimate",
    "agrees",
)
"""Of pairs that must all hold, the first of these is the verdict of all; of several such pairs the
one decides that has the least room to an end of the range."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A claim under one traffic: what it came to, by which change of which results.

    `condition` is the traffic that both sides share. `pairs` is how many there are to judge by;
    `result`, `against` and `change` are those that decided, `None` where none could.
    """

    claim: ExpectSpec
    condition: Values
    verdict: Verdict
    why: str
    pairs: int = 0
    result: Result | None = None
    against: Result | None = None
    change: Change | None = None


@dataclass(frozen=True)
class _Pair:
    result: Result
    against: Result
    change: Change | None


def judged(study: Study, records: Iterable[Record]) -> tuple[Judgement, ...]:
    """Every claim of a study, once for each traffic, window convention and origin of joules."""
    if not study.expect:
        return ()
    verdicts = settled(records)
    groups = comparable(results(verdicts))
    by_id: dict[str, list[Record]] = {}
    for record in verdicts:
        by_id.setdefault(record.id, []).append(record)
    return tuple(each for claim in study.expect for each in _judged(claim, study, groups, by_id))


def _judged(
    claim: ExpectSpec,
    study: Study,
    groups: Iterable[Group],
    by_id: Mapping[str, Sequence[Record]],
) -> Iterator[Judgement]:
    named = _named(claim, study)
    other = {**claim.when, **claim.against}
    parts: dict[str, list[Group]] = {}
    for group in groups:
        shared = _without(group.condition, named)
        origin = [group.convention, group.provenance, group.source, group.scope]
        parts.setdefault(canonical([shared, *origin]), []).append(group)
    found = []
    for members in parts.values():
        condition = _without(members[0].condition, named)
        everything = [result for group in members for result in group.results]
        ours = [each for each in everything if _is(each, claim.when)]
        theirs = [each for each in everything if _is(each, other)]
        if ours or theirs:
            found.append(_of_part(claim, condition, ours, theirs, named, by_id))
    judgeable = [each for each in found if each.pairs]
    yield from judgeable or found[:1] or [_not(claim, {}, "nothing that it speaks of was measured")]


def _of_part(
    claim: ExpectSpec,
    condition: Values,
    ours: Sequence[Result],
    theirs: Sequence[Result],
    named: frozenset[str],
    by_id: Mapping[str, Sequence[Record]],
) -> Judgement:
    partners: dict[str, list[Result]] = {}
    for each in theirs:
        partners.setdefault(_rest(each, named), []).append(each)
    pairs = []
    for result in ours:
        against = [each for each in partners.get(_rest(result, named), ()) if each is not result]
        if len(against) > 1:
            return _not(claim, condition, f"several match against: {_ids(against)}", len(against))
        pairs += [_Pair(result, each, _change(result, each, claim, by_id)) for each in against]
    if not pairs:
        side = "against" if ours else "when"
        return _not(claim, condition, f"nothing was measured that matches {side}, all else equal")
    published = parse_change(claim.change)
    if published is None:
        return _not(claim, condition, f"{claim.change} is no change")
    if published.form == "about" and len(pairs) > 1:
        said = f"several match: {_ids([each.result for each in pairs])}"
        return _not(claim, condition, said, len(pairs))
    decided = [_pair(claim, condition, published, pair, len(pairs)) for pair in pairs]
    if published.form == "up_to":
        known = [each for each in decided if each.change is not None]
        way = 1 if published.value > 0 else -1
        return max(known or decided, key=lambda each: (way * _percent(each, -way), _names(each)))
    return min(
        decided,
        key=lambda each: (_WORST.index(each.verdict), _room(published, each), _names(each)),
    )


def _percent(judgement: Judgement, unknown: float) -> float:
    return judgement.change.percent if judgement.change else unknown * math.inf


def _room(band: Published, judgement: Judgement) -> float:
    """How far inside its range the change is, in points; negative beyond an end of it."""
    if judgement.change is None:
        return -math.inf
    ends = [(band.low, 1), (band.high, -1)]
    return min(way * (judgement.change.percent - end) for end, way in ends if end is not None)


def _names(judgement: Judgement) -> list[str]:
    return [each.id for each in (judgement.result, judgement.against) if each is not None]


def _pair(
    claim: ExpectSpec, condition: Values, published: Published, pair: _Pair, pairs: int
) -> Judgement:
    verdict, why = _verdict(claim, published, pair)
    return Judgement(
        claim=claim,
        condition=condition,
        verdict=verdict,
        why=why,
        pairs=pairs,
        result=pair.result,
        against=pair.against,
        change=pair.change,
    )


def _verdict(claim: ExpectSpec, published: Published, pair: _Pair) -> tuple[Verdict, str]:
    made, metric = pair.change, claim.metric
    if made is None:
        return "cannot be judged", f"{metric} is not known on both sides"
    for side in (pair.result, pair.against):
        if side.provenance != "measured" and (side.simulated or is_energy(metric)):
            return (
                side.provenance,
                "no instrument measured it, so it speaks neither for nor against",
            )
    if metric in pair.result.undersampled or metric in pair.against.undersampled:
        return "cannot be judged", f"{metric} has too few samples"
    if made.low is None or made.high is None:
        return "cannot be judged", "one launch on a side gives no interval"
    if published.form == "within":
        return _of_band(published, claim.tolerance_points, made, made.low, made.high)
    return _of_value(published.value, claim.tolerance_points, made, made.low, made.high)


def _of_value(
    value: float, tolerance: float, made: Change, low: float, high: float
) -> tuple[Verdict, str]:
    stated = 1 + value / 100
    if low <= stated <= high:
        also = ", and so does no change" if low <= 1 <= high and value else ""
        return "agrees", f"the published change lies in the interval{also}"
    if abs(made.percent - value) <= tolerance:
        return "agrees", f"within {tolerance:g} points of the published change, as the claim allows"
    least, most = _with_gain(made, low, high)
    if least <= stated <= most:
        return "cannot be judged", "the boards' gain error alone could make the difference"
    if (value > 0 and least > 1) or (value < 0 and most < 1):
        return "sign agrees only", "the published change lies outside the interval"
    return "differs", "the published change lies outside the interval"


def _of_band(
    band: Published, tolerance: float, made: Change, low: float, high: float
) -> tuple[Verdict, str]:
    least, most = (100 * (each - 1) for each in _with_gain(made, low, high))
    bottom = float("-inf") if band.low is None else band.low - tolerance
    top = float("inf") if band.high is None else band.high + tolerance
    if (bottom < least and most < top) or (not band.strict and bottom <= least and most <= top):
        return "agrees", "the whole interval lies in the published range"
    if most < bottom or least > top or (band.strict and (most == bottom or least == top)):
        return "differs", "the whole interval lies outside the published range"
    return "cannot be judged", "the interval lies on both sides of an end of the published range"


def _with_gain(made: Change, low: float, high: float) -> tuple[float, float]:
    """The interval, wider by what two boards' opposite gain errors make, where they are in it."""
    gain = made.systematic or 0.0
    apart = (1 + gain) / (1 - gain)
    return low / apart, high * apart


def _change(
    result: Result, against: Result, claim: ExpectSpec, by_id: Mapping[str, Sequence[Record]]
) -> Change | None:
    sides = [launched(each, by_id.get(each.id, ()), claim.metric) for each in (result, against)]
    energy = result.energy
    gain = energy.systematic if energy and is_energy(claim.metric) else None
    return change(sides[0], sides[1], gain)


def _not(claim: ExpectSpec, condition: Values, why: str, pairs: int = 0) -> Judgement:
    return Judgement(
        claim=claim, condition=condition, verdict="cannot be judged", why=why, pairs=pairs
    )


def _named(claim: ExpectSpec, study: Study) -> frozenset[str]:
    """The keys that may differ between the sides: those of `against`, and what moves with them."""
    keys = {*claim.against, *claim.when}
    moving = [
        choice.keys()
        for axis in (*study.axes, *study.conditions)
        for choice in axis.choices
        if any(overlap(key, named) for key in choice for named in keys)
    ]
    return frozenset(keys.union(*moving))


def _without(values: Values, named: frozenset[str]) -> Values:
    return {
        key: value for key, value in values.items() if not any(overlap(key, each) for each in named)
    }


def _rest(result: Result, named: frozenset[str]) -> str:
    return canonical(_without({**result.chosen, **result.condition}, named))


def _is(result: Result, wanted: Values) -> bool:
    return all(_value(result, key) == value for key, value in wanted.items())


def _value(result: Result, key: str) -> Any:
    """A setting of a result; a key below one that is a mapping is looked for in it."""
    for source in (result.config, result.chosen):
        if key in source:
            return source[key]
    above, _, last = key.rpartition(".")
    whole = _value(result, above) if above else None
    return whole.get(last) if isinstance(whole, Mapping) else None


def _ids(found: Iterable[Result]) -> str:
    return ", ".join(each.id for each in found)
