"""Where a search stops: what was spent, what is under way, and what the study allows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.results.contents import Contents
from sweeper.spec import BudgetSpec, Trial

Elapsed = Callable[[], float]
"""Seconds that a study has taken so far, its earlier sittings included."""


@dataclass
class Budget:
    """Counts engine starts, GPU-hours and joules of all sittings against what is allowed.

    Launches are exact. GPU-hours count what those under way are expected to take, joules and
    seconds only what ended: those under way still come on top. A lease that told no joules adds
    none, as they are not known.
    """

    allowed: BudgetSpec
    elapsed: Elapsed
    launches: int = 0
    gpu_seconds: float = 0.0
    energy_j: float = 0.0
    _under_way: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def of(cls, allowed: BudgetSpec, before: Contents, elapsed: Elapsed) -> "Budget":
        """What earlier sittings have left."""
        budget = cls(allowed, elapsed)
        budget.launches = len(before.trials)
        for line in before.ended:
            budget._spend(line)
        return budget

    def begin(self, trial: Trial) -> None:
        """A trial will start."""
        self.launches += len(trial.launches)
        self._under_way[trial.id] = trial

    def end(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        """It ended, and what its lease tells was spent; a retry spends again."""
        self._under_way.pop(trial.id, None)
        self._spend(lease)

    @property
    def spent(self) -> bool:
        """Whether nothing may begin any more, whatever those under way turn out to take."""
        allowed = self.allowed
        return (
            (allowed.launches is not None and self.launches >= allowed.launches)
            or (allowed.gpu_hours is not None and self.gpu_seconds >= 3600 * allowed.gpu_hours)
            or (allowed.joules is not None and self.energy_j >= allowed.joules)
            or (allowed.wall_s is not None and self.elapsed() >= allowed.wall_s)
        )

    @property
    def committed(self) -> bool:
        """Whether nothing may begin now."""
        hours = self.allowed.gpu_hours
        expected = sum(trial.gpus * trial.expected_s for trial in self._under_way.values())
        return self.spent or (hours is not None and self.gpu_seconds + expected >= 3600 * hours)

    def _spend(self, lease: Mapping[str, Any]) -> None:
        self.gpu_seconds += lease.get("gpu_seconds") or 0.0
        self.energy_j += lease.get("energy_j") or 0.0
