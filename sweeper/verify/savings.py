"""What results save against the study's baseline, made again, and held against what is stated.

A ratio is one of geometric means: its logarithm is a difference of means of logarithms, with an
interval and a p by Student's t. It is paired, a difference for each lease, where more than half of
the leases of either side hold both sides; else by Welch's approximation. Claims, paired in at least
six leases, are adjusted by Holm's method, all others by Benjamini's and Hochberg's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.verify import ids
from sweeper.verify.figures import deviation
from sweeper.verify.pooling import Pooled, canonical, known
from sweeper.verify.student import outside, quantile
from sweeper.verify.tally import Tally

CLAIM = 6
"""Leases that hold both sides, for a claim."""
LEVEL = 0.05
SMALL = 1e-9
"""How far two codes' p-values may be apart."""
Side = Mapping[tuple[str, int], Sequence[float]]
"""The logarithms of a metric by lease."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """The ratio's logarithm, its standard error, degrees of freedom, and how it came about."""

    log: float
    error: float | None
    freedom: int
    paired: bool
    blocks: int
    launches: tuple[int, int]

    @property
    def p(self) -> float | None:
        """Two-sided, of no change at all."""
        if self.error is None:
            return None
        if self.error == 0:
            return 0.0 if self.log else 1.0
        return outside(abs(self.log) / self.error, self.freedom)

    @property
    def claim(self) -> bool:
        """Whether significance may be claimed."""
        return self.paired and self.blocks >= CLAIM and self.error is not None


def check(
    members: Sequence[Pooled],
    said: Sequence[Mapping[str, Any]],
    study: Mapping[str, Any],
    tally: Tally,
) -> None:
    """Hold the savings of one group of comparable results against those that are stated."""
    made = _partners(members, study)
    told = {(each["id"], each["baseline"]): each["changes"] for each in said}
    pairs = sorted((one.id, other.id) for one, other in made)
    tally.equal("savings", "savings", "results and their baselines", sorted(told), pairs)
    for metric in study["objectives"]:
        changes = {
            (one.id, other.id): change
            for one, other in made
            if (change := between(side(one, metric), side(other, metric))) is not None
        }
        adjusted = _adjusted(changes)
        for pair, change in changes.items():
            where = f"saving of {pair[0]} against {pair[1]}, {metric}"
            with tally.looking(where):
                _compare(told[pair][metric], change, adjusted.get(pair), where, tally)


def between(ours: Side, theirs: Side) -> Change | None:
    """The change from `theirs` to `ours`; `None` where either has nothing."""
    if not ours or not theirs:
        return None
    shared = [lease for lease in ours if lease in theirs]
    paired = 2 * len(shared) > max(len(ours), len(theirs))
    if paired:
        apart = [_mean(ours[lease]) - _mean(theirs[lease]) for lease in shared]
        error = deviation(apart) / math.sqrt(len(apart)) if len(apart) > 1 else None
        count = tuple(sum(len(side[lease]) for lease in shared) for side in (ours, theirs))
        return Change(
            log=_mean(apart),
            error=error,
            freedom=len(apart) - 1,
            paired=True,
            blocks=len(shared),
            launches=(count[0], count[1]),
        )
    one, other = ([log for logs in side.values() for log in logs] for side in (ours, theirs))
    error, freedom = _welch(one, other)
    return Change(
        log=_mean(one) - _mean(other),
        error=error,
        freedom=freedom,
        paired=False,
        blocks=0,
        launches=(len(one), len(other)),
    )


def _welch(one: Sequence[float], other: Sequence[float]) -> tuple[float | None, int]:
    if min(len(one), len(other)) < 2:
        return None, 0
    parts = [(deviation(side) ** 2 / len(side), len(side) - 1) for side in (one, other)]
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return 0.0, 1
    freedom = 1 / math.fsum((part / variance) ** 2 / below for part, below in parts)
    return math.sqrt(variance), max(1, math.floor(freedom * (1 + 1e-9)))


def side(result: Pooled, metric: str) -> Side:
    """The logarithms of a result's metric; empty where a value has none."""
    found: dict[tuple[str, int], list[float]] = {}
    for record in result.records:
        value = known(record).get(metric)
        if value is not None and value <= 0:
            return {}
        if value is not None:
            lease = (record["trial_id"], record["attempt"])
            found.setdefault(lease, []).append(math.log(value))
    return found


def _partners(members: Sequence[Pooled], study: Mapping[str, Any]) -> list[tuple[Pooled, Pooled]]:
    """Each result with the one baseline that differs from it in nothing but the baseline's axes."""
    baseline = study["baseline"]
    if not baseline:
        return []
    axes = [ids.choices(study, *axis) for axis in study["axes"].items()]
    moved = [{key for choice in axis for key in choice} for axis in axes]
    swept = set(baseline).union(*(keys for keys in moved if keys & set(baseline)))

    def rest(result: Pooled) -> str:
        chosen = result.first["chosen"]
        return canonical({key: value for key, value in chosen.items() if key not in swept})

    bases = [each for each in members if _is(each, baseline)]
    found = []
    for result in members:
        against = [each for each in bases if rest(each) == rest(result)]
        if len(against) == 1 and not _is(result, baseline):
            found.append((result, against[0]))
    return found


def _is(result: Pooled, baseline: Mapping[str, Any]) -> bool:
    config, chosen = result.first["config"], result.first["chosen"]
    return all(config.get(key, chosen.get(key)) == value for key, value in baseline.items())


def _adjusted(changes: Mapping[tuple[str, str], Change]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for claims in (True, False):
        family = sorted(
            (each.p, pair)
            for pair, each in changes.items()
            if each.claim is claims and each.p is not None
        )
        count = len(family)
        if claims:
            steps = [(count - rank) * p for rank, (p, _) in enumerate(family)]
            values = [min(1.0, max(steps[: rank + 1])) for rank in range(count)]
        else:
            steps = [count / (rank + 1) * p for rank, (p, _) in enumerate(family)]
            values = [min(1.0, *steps[rank:]) for rank in range(count)]
        found |= {pair: value for (_, pair), value in zip(family, values, strict=True)}
    return found


def _compare(
    said: Mapping[str, Any], made: Change, adjusted: float | None, where: str, tally: Tally
) -> None:
    tally.number("savings", where, "ratio", said["ratio"], math.exp(made.log))
    for name in ("paired", "blocks"):
        tally.equal("savings", where, name, said[name], getattr(made, name))
    tally.equal("savings", where, "launches", list(said["launches"]), list(made.launches))
    if made.error is None or made.p is None or adjusted is None:
        for name in ("low", "high", "p"):
            tally.equal("savings", where, name, said[name], None)
        return
    half = quantile(0.975, made.freedom) * made.error
    tally.number("savings", where, "low", said["low"], math.exp(made.log - half))
    tally.number("savings", where, "high", said["high"], math.exp(made.log + half))
    tally.close("savings", where, "p", said["p"], made.p, SMALL)
    tally.close("savings", where, "p_adjusted", said["p_adjusted"], adjusted, SMALL)
    significant = adjusted <= LEVEL if made.claim else None
    tally.equal("savings", where, "significant", said["significant"], significant)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
