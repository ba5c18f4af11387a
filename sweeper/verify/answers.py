"""The answers of a study made again from its verdicts, and held against those that are stated."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.verify import savings
from sweeper.verify.ids import get
from sweeper.verify.pooling import (
    NEEDS_METER,
    Pooled,
    canonical,
    comparable,
    costs_of,
    front,
    within,
)
from sweeper.verify.tally import Tally

LOSSLESS = frozenset({None, "draft", "ngram"})
"""Speculation that keeps the model's distribution; a stated acceptance does not."""
MORE_IS_BETTER = ("_per_s", "_rps", "quality_score")


def check(
    results: Sequence[Pooled],
    stated: Sequence[Mapping[str, Any]],
    study: Mapping[str, Any],
    tally: Tally,
) -> None:
    """Hold every stated answer against the one made again; none may be more or fewer.

    A stated answer is plain data: `condition, convention, provenance, source, scope, objectives,
    limits, front, best, results`.
    """
    groups = comparable(results)
    named = {_group(each): each for each in stated if each["results"]}
    tally.equal("answers", "answers", "groups that share a front", sorted(named), sorted(groups))
    for name in sorted(named.keys() & groups.keys()):
        with tally.looking(f"answer for {name}"):
            _answer(groups[name], named[name], study, tally)


def _answer(
    members: Sequence[Pooled], said: Mapping[str, Any], study: Mapping[str, Any], tally: Tally
) -> None:
    where = f"answer for {canonical(said['condition'])}"
    objectives = study["objectives"]
    limits = [
        {"metric": name, "bound": bound, "upper": not name.endswith(MORE_IS_BETTER)}
        for name, bound in study["limits"].items()
    ]
    tally.equal("answers", where, "objectives", said["objectives"], objectives)
    tally.equal("answers", where, "limits", said["limits"], limits)
    told = {_name(each["id"], each["stage"]): each for each in said["results"]}
    made = {_name(each.id, each.first["stage"]): each for each in members}
    if tally.equal("answers", where, "results", sorted(told), sorted(made)):
        for name, result in made.items():
            place = f"result {name}"
            tally.equal("results", place, "launches", told[name]["launches"], result.launches)
            tally.equal("results", place, "gpus", told[name]["gpus"], result.first["gpus"])
            few = sorted(result.undersampled)
            tally.equal("results", place, "undersampled", told[name]["undersampled"], few)
            tally.numbers("numbers of results", place, told[name]["metrics"], result.metrics)
    shown = sorted(front(members, objectives))
    tally.equal("answers", where, "front", sorted(said["front"]), shown)
    savings.check(members, said["savings"], study, tally)
    best = _best(members, objectives, limits, study)
    tally.equal("answers", where, "best", said["best"], best and best.id)


def _best(
    members: Iterable[Pooled],
    objectives: Mapping[str, str],
    limits: Sequence[Mapping[str, Any]],
    study: Mapping[str, Any],
) -> Pooled | None:
    """The fewest GPUs among the least and what ties with it, of what may be recommended."""
    target = next(iter(objectives))
    if not limits:
        target = next((each for each in objectives if each in NEEDS_METER), target)
    way = {target: objectives[target]}
    allowed = [
        each
        for each in members
        if target in each.metrics and within(each, limits) and not _unchecked(each, study)
    ]
    if not allowed:
        return None
    ranked = sorted(allowed, key=lambda each: (costs_of(each, way), each.first["gpus"], each.id))
    low, high = ranked[0].extent(target)
    tied = [
        each for each in ranked if low <= each.extent(target)[1] and each.extent(target)[0] <= high
    ]
    return min(tied, key=lambda each: each.first["gpus"])


def _unchecked(result: Pooled, study: Mapping[str, Any]) -> bool:
    """Whether its settings may change what the model says, and nobody allowed that."""
    if study["quality"] == "unchecked_ok":
        return False
    if study["quality"] is not None:
        score = result.metrics.get("quality_score")
        return score is None or bool(score < study["quality"]["min"])
    config = result.first["config"]
    decoding = any(key.startswith("workload.decoding") for key in result.first["chosen"])
    return bool(
        config["engine.quantization"] is not None
        or config["engine.kv_cache_dtype"] not in {"auto", config["engine.dtype"]}
        or get(config["engine.speculative"], "kind") not in LOSSLESS
        or (decoding and get(config["workload.decoding"], "kind") != "greedy")
    )


def _group(said: Mapping[str, Any]) -> str:
    parts = ("condition", "convention", "provenance", "source", "scope")
    return canonical([said[part] for part in parts])


def _name(point: str, stage: str) -> str:
    return f"{point} ({stage})"
