"""Studies measured without a cluster, kept as a driver keeps them; and every study verified."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeper.answers.stated import stated_in
from sweeper.keeper import Keeper
from sweeper.plan import plan
from sweeper.progress.progress import Progress
from sweeper.progress.views import PlainView
from sweeper.results.journal import Journal
from sweeper.spec import Study, Trial
from sweeper.study import dump
from sweeper.trial.lease import Lease
from sweeper.verify import Report, verify
from sweeper.verify.report import text
from tests.searches import Listed

DEVICES = tuple(f"H100/{number}" for number in range(8))
Event = Mapping[str, Any]


def assert_verified(folder: Path) -> Report:
    """No study of the tests may hold a number that cannot be made again."""
    report = verified(folder)
    assert report.ok, text(report)
    return report


def verified(folder: Path) -> Report:
    return verify(folder, lambda: stated_in(folder))


class Kept:
    """A study's folder, into which leases are measured, in virtual time."""

    def __init__(self, study: Study, root: Path) -> None:
        self.study = study
        self.folder = root / study.name
        self._scratch = root / "scratch"

    def measure(
        self,
        trials: Sequence[Trial] | None = None,
        until: Callable[[Event], bool] = lambda event: False,
    ) -> Path:
        """All that the study asks for, or these trials, each up to an event; the folder."""
        with self.keeper() as keeper:
            for trial in plan(self.study).trials if trials is None else trials:
                self.lease(trial, keeper, until)
        return self.folder

    def lease(
        self, trial: Trial, keeper: Keeper, until: Callable[[Event], bool] = lambda event: False
    ) -> list[Event]:
        """One lease, from its start to its end, or killed after an event; what it told."""
        exclusive = self.study.resources.exclusive_node
        place = {"node_id": "n", "host": "h", "exclusive_node": exclusive}
        held = DEVICES if exclusive else DEVICES[: trial.gpus]
        lease = Lease(trial, held, self.study.name, self._scratch, place)
        told: list[Event] = []
        lease.start()
        while not lease.finished:
            for event in lease.events(60.0):
                keeper.take(trial, event)
                told.append(event)
                if until(event):
                    lease.kill()
                    return told
            lease.acknowledge()
        return told

    def give_up(self, trial: Trial, reason: str) -> None:
        """As a driver does when a trial has failed too often."""
        points = [point.id for launch in trial.launches for point in launch.points]
        with self.keeper() as keeper:
            keeper.take(trial, {"kind": "given_up", "points": points, "reason": reason})

    @contextmanager
    def keeper(self) -> Iterator[Keeper]:
        """What keeps a sitting's events; the journal is open while this lasts."""
        view = PlainView(lambda line: None)
        with Journal.open(self.folder, dump(self.study)) as journal:
            progress = Progress(self.study, plan(self.study), journal.contents, self.folder, view)
            yield Keeper(self.study, journal, progress, Listed([]))
