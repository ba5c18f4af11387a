"""How long a study has still to go, from what its launches took so far (pure).

A point counts by what the plan expects it to take, which only says how points compare: how long
the expected second really is comes from the windows closed so far, how long a load is from the
loads seen. What is left then takes the longer of two: its GPU-seconds over the GPUs that were held
at once, and its longest trial.
"""

from dataclasses import dataclass, field

from sweeper.results.record import Key
from sweeper.spec import Trial

MEASURED = frozenset({"ok", "energy_invalid"})
"""Verdicts that took all the windows of a point."""


@dataclass
class _Lease:
    """A trial at work: since when it loads, or since when nothing was credited."""

    since_s: float
    loading: bool = True


@dataclass
class _Work:
    """A trial in expected seconds: of each point, credited of each, and left of all."""

    gpus: int
    loads: int
    expected_s: dict[Key, float]
    windows: dict[Key, int]
    left_s: float
    credited_s: dict[Key, float] = field(default_factory=dict)
    settled: set[Key] = field(default_factory=set)
    lease: _Lease | None = None

    @property
    def open(self) -> int:
        return len(self.expected_s) - len(self.settled)

    @property
    def window_s(self) -> float:
        """A mean window among those that are left."""
        windows = sum(self.windows[key] for key in self.expected_s if key not in self.settled)
        whole_s = sum(s for key, s in self.expected_s.items() if key not in self.settled)
        return whole_s / windows if windows else 0.0


class Pace:
    """Learns from what trials tell how long the rest takes. Moments are of one monotonic clock."""

    def __init__(self) -> None:
        self._works: dict[str, _Work] = {}
        self._of: dict[Key, str] = {}
        self._spent_s = 0.0
        self._gained_s = 0.0
        self._loads = 0
        self._loads_s = 0.0
        self._width = 1

    def planned(self, trial: Trial) -> None:
        """A trial is to be done."""
        keys: dict[Key, int] = {
            (point.id, launch.number, launch.stage): point.settings.measure.windows
            for launch in trial.launches
            for point in launch.points
        }
        share_s = max(trial.expected_s, 0.0) / len(keys)
        self._works[trial.id] = _Work(
            gpus=trial.gpus,
            loads=len(trial.launches),
            expected_s=dict.fromkeys(keys, share_s),
            windows=keys,
            left_s=share_s * len(keys),
        )
        self._of |= dict.fromkeys(keys, trial.id)

    def began(self, trial: Trial, now_s: float) -> None:
        """A lease of a trial began."""
        if trial.id not in self._works:
            self.planned(trial)
        work = self._works[trial.id]
        work.lease = _Lease(now_s)
        work.loads = len(trial.launches)
        held = sum(each.gpus for each in self._works.values() if each.lease is not None)
        self._width = max(self._width, held)

    def anew(self, trial_id: str) -> None:
        """All points of a trial are measured again."""
        if (work := self._works.get(trial_id)) is not None:
            work.settled.clear()
            work.credited_s.clear()
            work.left_s = sum(work.expected_s.values())

    def loading(self, trial_id: str, now_s: float) -> None:
        """The next launch of a lease begins."""
        if (work := self._works.get(trial_id)) is not None and work.lease is not None:
            work.lease = _Lease(now_s)

    def loaded(self, trial_id: str, now_s: float) -> None:
        """A launch works on a point, so its engine is up."""
        work = self._works.get(trial_id)
        if work is None or work.lease is None or not work.lease.loading:
            return
        self._loads += 1
        self._loads_s += now_s - work.lease.since_s
        work.loads = max(0, work.loads - 1)
        work.lease = _Lease(now_s, loading=False)

    def window(self, key: Key, now_s: float) -> None:
        """A window of a point closed."""
        if (work := self._work(key)) is not None and key not in work.settled:
            credited_s = work.credited_s.get(key, 0.0)
            whole_s = work.expected_s[key]
            more_s = min(whole_s / work.windows[key], whole_s - credited_s)
            work.credited_s[key] = credited_s + more_s
            self._credit(work, more_s, now_s)
            work.left_s -= more_s

    def verdict(self, key: Key, status: str, now_s: float) -> None:
        """A point has its verdict."""
        if (work := self._work(key)) is not None and key not in work.settled:
            rest_s = work.expected_s[key] - work.credited_s.get(key, 0.0)
            self._credit(work, rest_s if status in MEASURED else 0.0, now_s)
            work.settled.add(key)
            work.left_s -= rest_s

    def ended(self, trial_id: str) -> None:
        """A lease ended: points without a verdict begin anew."""
        if (work := self._works.get(trial_id)) is None:
            return
        work.lease = None
        work.loads = max(work.loads, 1)
        for key in [key for key in work.credited_s if key not in work.settled]:
            work.left_s += work.credited_s.pop(key)

    def share(self) -> float | None:
        """How much of the expected work is done (0..1); `None` where none is expected."""
        whole_s = sum(sum(work.expected_s.values()) for work in self._works.values())
        left_s = sum(work.left_s for work in self._works.values() if work.open)
        return min(max(1.0 - left_s / whole_s, 0.0), 1.0) if whole_s > 0 else None

    def left_s(self, now_s: float) -> float | None:
        """Seconds until all that was planned is done; `None` before anything is, and after."""
        works = [work for work in self._works.values() if work.open]
        if not works or self._gained_s <= 0.0:
            return None
        each_s = [self._left_of(work, now_s) for work in works]
        area_s = sum(work.gpus * left_s for work, left_s in zip(works, each_s, strict=True))
        return max(area_s / self._width, *each_s)

    def _left_of(self, work: _Work, now_s: float) -> float:
        load_s = self._loads_s / self._loads if self._loads else 0.0
        pace = self._spent_s / self._gained_s
        left_s = pace * work.left_s + work.loads * load_s
        if work.lease is not None:
            at_most_s = load_s if work.lease.loading else pace * work.window_s
            left_s -= min(now_s - work.lease.since_s, at_most_s)
        return max(left_s, 0.0)

    def _work(self, key: Key) -> _Work | None:
        return self._works.get(self._of.get(key, ""))

    def _credit(self, work: _Work, gained_s: float, now_s: float) -> None:
        self._gained_s += gained_s
        if work.lease is not None:
            self._spent_s += now_s - work.lease.since_s
            work.lease = _Lease(now_s, loading=False)
