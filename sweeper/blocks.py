"""Blocks: trials that launch every compared configuration in turn, on the same GPUs (pure).

A block measures each finalist of one condition once. Its launches have its number, so that a key
is the block that a record is of. What pairs is what one lease measured: a block counts whole, from
one attempt, or it is measured again.
"""

import random
from collections.abc import Iterable, Mapping, Sequence

from sweeper.plan import (
    NOMINAL,
    Cost,
    by_configuration,
    digest,
    expand,
    expected_s,
    min_requests,
    sizes_of,
)
from sweeper.results.record import Key, Record
from sweeper.spec import Launch, Point, Study, Trial


def blocks(study: Study, compared: Sequence[Point], cost: Cost = NOMINAL) -> tuple[Trial, ...]:
    """The study's blocks of points that are compared; none where there are no points.

    They are as wide as the widest of them, and share their requests: all launches of a block are
    seeded alike.
    """
    if not compared:
        return ()
    mine = {point.configuration for point in compared}
    groups = {group[0].configuration: group for group in by_configuration(compared)}
    sizes = {
        group[0].configuration: sizes_of(group)
        for group in by_configuration(expand(study)[0])
        if group[0].configuration in mine
    }
    names = sorted(point.id for point in compared)
    made = []
    for number in range(study.settings.measure.finalists.blocks):
        identity = digest([number, "final", names], length=10)
        launches = tuple(
            Launch(
                number=number,
                stage="final",
                sizes=sizes[configuration],
                points=groups[configuration],
                min_requests=min_requests(study),
                seed=int(identity, 16),
            )
            for configuration in order(sorted(groups), number, digest(names))
        )
        made.append(
            Trial(
                id=identity,
                gpus=max(launch.gpus for launch in launches),
                launches=launches,
                expected_s=expected_s(launches, cost),
            )
        )
    return tuple(made)


def order(names: Sequence[str], number: int, seed: str) -> list[str]:
    """In which order a block launches what it compares.

    As many blocks as there are names make a round: a Latin square of a permutation of chance, its
    rows in an order of chance, so that within a round everything is launched first once, second
    once, and so on, and what a launch leaves behind (heat above all) falls on all alike.
    """
    turn, row = divmod(number, len(names))
    chance = random.Random(f"{seed}/{turn}")
    shuffled, rows = list(names), list(range(len(names)))
    chance.shuffle(shuffled)
    chance.shuffle(rows)
    start = rows[row]
    return [*shuffled[start:], *shuffled[:start]]


def left(made: Iterable[Trial], accepted: Mapping[Key, Record]) -> tuple[Trial, ...]:
    """The blocks that are not whole: each is measured again, with all of its launches."""
    return tuple(block for block in made if not whole(block, accepted))


def whole(block: Trial, accepted: Mapping[Key, Record]) -> bool:
    """Whether all that a block compares has a verdict from one lease."""
    found = [
        accepted.get((point.id, launch.number, launch.stage))
        for launch in block.launches
        for point in launch.points
    ]
    leases = {(record.trial_id, record.attempt) for record in found if record is not None}
    return None not in found and len(leases) == 1


def comparisons(points: Iterable[Point]) -> tuple[tuple[Point, ...], ...]:
    """Points whose results share fronts, and so have finalists of their own.

    They are of one condition and one convention.
    """
    found: dict[str, list[Point]] = {}
    for point in points:
        key = digest([dict(point.condition), point.settings.convention])
        found.setdefault(key, []).append(point)
    return tuple(tuple(group) for group in found.values())


def promise(study: Study, points: Iterable[Point]) -> str | None:
    """The blocks that follow when the rest is measured, in words; `None` where none do."""
    asked = study.settings.measure.finalists
    if not asked.blocks:
        return None
    groups = comparisons(points)
    count = min(asked.count, max(map(len, groups)))
    finalists = f"the {count} finalists" if count > 1 else "the finalist"
    said = f"{asked.blocks} block{'s' * (asked.blocks > 1)} of {finalists}"
    if len(groups) > 1:
        said += f" of each of {len(groups)} conditions"
    return said + (", with what their savings are against" if study.baseline else "")
