"""What would be answered if windows whose energy was discarded counted as well (pure).

A discarded window whose readings still tell joules (no reason that voids it) gets them back, and
what its records say of energy is made again. What was read wrongly, or not at all, stays unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeper.answers.best import Answer
from sweeper.answers.results import Result, canonical
from sweeper.results.metrics import is_energy, record_metrics, window_metrics
from sweeper.results.reasons import REASONS, code_of, voids
from sweeper.results.record import Record, Window

REPEATS = "measure.repeats"
"""The setting that says how many windows with energy make a record `ok`."""


@dataclass(frozen=True, kw_only=True)
class Discards:
    """How many windows have no energy; of these, how many still tell joules; and all by code.

    A window with several reasons counts under each of their codes, the gravest codes are first.
    """

    windows: int
    usable: int
    codes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An answer beside the one to the same question with the discards included.

    Either is `None` where only the other has results.
    """

    without: Answer | None
    included: Answer | None

    @property
    def best_changes(self) -> bool:
        """Whether another point would be recommended, or only with the discards one at all."""
        return _best(self.without) != _best(self.included)

    @property
    def front_changes(self) -> bool:
        """Whether other points would be on the front."""
        return set(_ids(self.without)) != set(_ids(self.included))


def discards(windows: Iterable[Mapping[str, Any]]) -> Discards:
    """Counts over windows as plain data: `energy_j` and `reasons` of each."""
    lost = [tuple(window["reasons"]) for window in windows if window.get("energy_j") is None]
    codes = Counter(code for reasons in lost for code in {code_of(each) for each in reasons})
    grave = [*REASONS]
    places = {code: grave.index(code) if code in REASONS else len(grave) for code in codes}
    return Discards(
        windows=len(lost),
        usable=sum(bool(reasons) and not voids(reasons) for reasons in lost),
        codes={code: codes[code] for code in sorted(codes, key=lambda each: (places[each], each))},
    )


def discards_of(records: Iterable[Record]) -> Discards:
    """The same over the windows of records."""
    return discards(
        {"energy_j": window.energy_j, "reasons": window.reasons}
        for record in records
        for window in record.windows
    )


def with_discards(records: Iterable[Record]) -> tuple[Record, ...]:
    """The records with the joules of discarded windows, and what follows from them.

    An `energy_invalid` record becomes `ok` where it then has as many windows with joules as its
    point asks for. Latencies and rates stay: they were of all windows anyhow.
    """
    return tuple(_with(record) for record in records)


def effects(without: Sequence[Answer], included: Sequence[Answer]) -> tuple[Effect, ...]:
    """The answers paired by what they answer, in the order of `included`, then what is left."""
    before = {_question(each): each for each in without}
    found = [Effect(without=before.pop(_question(each), None), included=each) for each in included]
    left = [Effect(without=each, included=None) for each in before.values() if each.group.results]
    return (*(each for each in found if each.included and each.included.group.results), *left)


def _with(record: Record) -> Record:
    if record.status not in {"ok", "energy_invalid"}:
        return record
    windows = tuple(_restored(window, record.gpus) for window in record.windows)
    if windows == tuple(record.windows):
        return record
    made, _ = record_metrics(windows, record.gpus)
    metered = sum(each.energy_j is not None for each in windows if each.phase == "all")
    enough = metered >= int(record.config.get(REPEATS, len(windows)))
    return replace(
        record,
        status="ok" if enough else record.status,
        windows=windows,
        metrics={**record.metrics, **_of_energy(made)},
    )


def _restored(window: Window, gpus: int) -> Window:
    joules = window.discarded_j
    if joules is None or window.energy_j is not None:
        return window
    made = window_metrics(
        duration_s=window.duration_s,
        energy_j=joules,
        requests=window.requests,
        input_tokens=window.input_tokens,
        output_tokens=window.output_tokens,
        samples={},
        gpus=gpus,
        metered_s=window.metered_s,
    )
    return replace(window, energy_j=joules, metrics={**window.metrics, **_of_energy(made)})


def _of_energy(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if is_energy(name)}


def _question(answer: Answer) -> str:
    group = answer.group
    known = [group.provenance, group.source, group.scope] if group.results else []
    return canonical([dict(group.condition), group.convention, known])


def _best(answer: Answer | None) -> str | None:
    return answer.best.id if answer and answer.best else None


def _ids(answer: Answer | None) -> Sequence[str]:
    front: Sequence[Result] = answer.front if answer else ()
    return [each.id for each in front]
