"""What a study under way has come to at one moment, as plain frozen data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, get_args

from sweeper.results.record import Status

STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """One launch that holds GPUs now.

    `launch` counts from 1 within its lease, of `launches`. `gpus` is 0 on a machine without any.
    `point` is a few words, and `None` where no point is worked on. Seconds are of the wall clock.
    """

    trial_id: str
    attempt: int
    node: str
    gpus: int
    launch: int
    launches: int
    phase: str
    point: str | None
    phase_s: float
    held_s: float
    points: int
    points_done: int


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A death or a failure: of which trial, why, and where the engine's log is, if it left one."""

    trial_id: str
    reason: str
    log: str | None = None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The recommendation of one condition so far.

    `value` is in the metric's SI unit; `origin` says what its joules are where they are not
    measured.
    """

    condition: str
    chosen: str
    id: str
    metric: str
    value: float | None
    origin: str | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A study so far.

    What is counted are verdicts: one for each point of each launch of it. `asked` are those that
    there are to come by, `before` those that were there when this sitting began and are not among
    them. With `more` a search may yet ask for others, within `budget`; then nobody knows the end.
    `then` is what comes after all of that, in words, of which it is not known yet what it will be.
    `unended` are leases of which nobody knows how long they were held: their driver was killed.
    `energy_j` is the joules of all windows by what they are (`measured`, `estimate`,
    `simulation`), `share` the part of the expected work that is done (0..1).
    """

    study: str
    asked: int
    before: int = 0
    launches: int = 0
    more: bool = False
    budget: str | None = None
    then: str | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    under_way: tuple[UnderWay, ...] = ()
    leases: int = 0
    unended: int = 0
    deaths: Mapping[str, int] = field(default_factory=dict)
    discards: Mapping[str, int] = field(default_factory=dict)
    gpu_seconds: float = 0.0
    energy_j: Mapping[str, float] = field(default_factory=dict)
    share: float | None = None
    left_s: float | None = None
    best: tuple[Best, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def done(self) -> int:
        """Verdicts, given up ones included."""
        return sum(self.counts.values())

    @property
    def left(self) -> int:
        """Verdicts still to come, as far as they were asked for."""
        return self.asked - self.done

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal snapshot back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError: it is not.
        """
        parts = {"under_way": UnderWay, "best": Best, "troubles": Trouble}
        read = {name: tuple(part(**each) for each in data[name]) for name, part in parts.items()}
        return cls(**{**data, **read})
