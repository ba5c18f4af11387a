"""Studies measured without a cluster, kept as a driver keeps them; and every study verified."""

from collections.abc import Sequence
from pathlib import Path

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

DEVICES = ("H100/0", "H100/1", "H100/2", "H100/3")


def assert_verified(folder: Path) -> Report:
    """No study of the tests may hold a number that cannot be made again."""
    report = verified(folder)
    assert report.ok, text(report)
    return report


def verified(folder: Path) -> Report:
    return verify(folder, lambda: stated_in(folder))


class Kept:
    """A study's folder, with leases measured into it one after the other."""

    def __init__(self, study: Study, folder: Path, scratch: Path) -> None:
        self.study = study
        self.folder = folder
        self._scratch = scratch

    def measure(self, trials: Sequence[Trial] | None = None) -> Path:
        """All that the study asks for, or the trials given; the folder."""
        whole = plan(self.study)
        with Journal.open(self.folder, dump(self.study)) as journal:
            view = PlainView(lambda line: None)
            progress = Progress(self.study, whole, journal.contents, self.folder, view)
            keeper = Keeper(self.study, journal, progress, Listed([]))
            for trial in whole.trials if trials is None else trials:
                self._lease(trial, keeper)
        return self.folder

    def _lease(self, trial: Trial, keeper: Keeper) -> None:
        place = {"node_id": "n", "host": "h"}
        devices = DEVICES[: trial.gpus]
        lease = Lease(trial, devices, self.study.name, self._scratch, place)
        lease.start()
        while not lease.finished:
            for event in lease.events(60.0):
                keeper.take(trial, event)
            lease.acknowledge()
