"""What happens after a death: which points go on elsewhere, and which are given up.

A point that was in progress at two deaths, or failed twice on its own, is failed alone and the
rest of its launch goes on; a launch in which three leases died with no point in progress is failed
as a whole. Every death moves one of these counts, so a trial ends.

A block compares what one lease measured, so a lease that dies takes all of it along: its next
attempt measures everything again but what was given up, and what the attempts before it came to no
longer counts (`keeper.py` takes it back when the next begins).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper.results.contents import Contents
from sweeper.results.record import ACCEPTED, Key
from sweeper.spec import Launch, Trial

POINT_DEATHS = 2
TRIAL_DEATHS = 3


@dataclass(frozen=True, kw_only=True)
class Death:
    """One end of a lease before its time: where, why, and what was being measured.

    `launch` is the one under way, by its configuration and number; `None` after the last.
    """

    node_id: str
    reason: str
    point: Key | None = None
    launch: tuple[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Course:
    """A trial so far: which points have a verdict, what failed, and where it died.

    `attempts` counts the leases it was given.
    """

    trial: Trial
    attempts: int = 0
    accepted: frozenset[Key] = frozenset()
    failed: Mapping[Key, int] = field(default_factory=dict)
    deaths: tuple[Death, ...] = ()
    given_up: frozenset[Key] = frozenset()

    @property
    def avoided(self) -> frozenset[str]:
        """Nodes on which it died."""
        return frozenset(death.node_id for death in self.deaths)


def keys(trial: Trial) -> list[Key]:
    """Every point of every launch of the trial, in order."""
    return keys_of(trial.launches)


def keys_of(launches: Iterable[Launch]) -> list[Key]:
    """Every point of the launches, in order."""
    return [
        (point.id, launch.number, launch.stage) for launch in launches for point in launch.points
    ]


def record_key(event: Mapping[str, Any]) -> Key:
    """The key of a `record` or `window`, which carries the record's own fields."""
    return (str(event["id"]), int(event["launch"]), str(event["stage"]))


def begun(course: Course) -> Course:
    """The course when another lease of it begins."""
    kept = frozenset() if course.trial.block else course.accepted
    return replace(course, attempts=course.attempts + 1, accepted=kept)


def recorded(course: Course, event: Mapping[str, Any]) -> Course:
    """The course after a `record` event."""
    key = record_key(event)
    if event["status"] in ACCEPTED:
        return replace(course, accepted=course.accepted | {key})
    return _failed(course, key)


def died(course: Course, death: Death) -> Course:
    """The course after its lease ended before its time."""
    if death.point not in _open(course):
        death = replace(death, point=None)
    course = replace(course, deaths=(*course.deaths, death))
    if death.point is not None:
        return _failed(course, death.point)
    alike = [each for each in course.deaths if each.point is None and each.launch == death.launch]
    if len(alike) >= TRIAL_DEATHS:
        return replace(course, given_up=course.given_up | _at_fault(course, death))
    return course


def remaining(course: Course, *, failed_only: bool = False) -> Trial | None:
    """The trial with the points that still need a verdict; `None` when nothing is left.

    After a lease that ended in its own time only the points that failed are left (`failed_only`):
    its agenda may have had no need of the others.
    """
    left = _open(course)
    if failed_only:
        left &= set(course.failed)
    if left and course.trial.block:
        left = frozenset(keys(course.trial)) - course.given_up
    if not left:
        return None
    return restricted(course.trial, left, attempt=course.trial.attempt + course.attempts)


def next_attempt(trial: Trial, before: Contents) -> int:
    """The first attempt that neither this trial nor any of its points had in earlier sittings.

    A sitting that was killed may have left windows and files of its attempt, but no record.
    """
    points = set(keys(trial))
    told: list[int] = [line["attempt"] for line in before.trials if line["trial_id"] == trial.id]
    told += [record.attempt for record in before.records if record.key in points]
    told += [line["attempt"] for line in before.windows if record_key(line) in points]
    return max(told, default=-1) + 1


def restricted(trial: Trial, kept: Collection[Key], attempt: int) -> Trial:
    """The trial with only these points, its expected time in proportion."""
    launches = []
    for launch in trial.launches:
        points = tuple(
            point for point in launch.points if (point.id, launch.number, launch.stage) in kept
        )
        if points:
            launches.append(replace(launch, points=points))
    return replace(
        trial,
        launches=tuple(launches),
        expected_s=trial.expected_s * len(kept) / len(keys(trial)),
        attempt=attempt,
    )


def named(launch: Launch) -> tuple[str, int]:
    """What tells a launch from the others of its trial."""
    return launch.points[0].configuration, launch.number


def _at_fault(course: Course, death: Death) -> frozenset[Key]:
    """What is given up with a launch: its points, of a block also those that it had measured."""
    mine = keys_of(launch for launch in course.trial.launches if named(launch) == death.launch)
    if course.trial.block and mine:
        return frozenset(mine)
    return frozenset(mine) & _open(course) or _open(course)


def _open(course: Course) -> frozenset[Key]:
    return frozenset(keys(course.trial)) - course.accepted - course.given_up


def _failed(course: Course, key: Key) -> Course:
    counts = Counter(course.failed)
    counts[key] += 1
    given_up = course.given_up
    if counts[key] >= POINT_DEATHS:
        given_up |= {key}
    return replace(course, failed=dict(counts), given_up=given_up)
