"""The error tree.

SweeperError
├── StudyError        the study file or the command line is wrong          exit 2
├── PlaceError        a cluster, folder or tracking server cannot be used  exit 2
├── JournalError      locked, damaged, or of another environment           exit 2
├── MachineryError    a cluster or disk that failed under a running study  exit 1
├── EngineError       an engine failed while it was asked to work          record: failed
│   ├── Infeasible    out of memory, an impossible combination             record: infeasible
│   └── WrongSetting  it did something else than was asked                 record: wrong_setting
└── MeterError        a meter cannot be opened or read: a reason code      no energy
"""

from collections.abc import Iterable

EXIT_OK, EXIT_FAILED, EXIT_WRONG, EXIT_NOTHING_MEETS, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
"""Every point has a verdict; machinery failed; bad input; no result meets the limits; Ctrl-C.

Of `doctor` and `verify`: all is well; something is missing, or a number differs; bad input.
"""


class SweeperError(Exception):
    """Anything sweeper can explain to the person who typed the command."""


class StudyError(SweeperError):
    """A study file or command line that cannot be used.

    Every fault is reported at once; each names its place and the way out.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class PlaceError(SweeperError):
    """A cluster, a folder or a tracking server that cannot be used as asked."""


class JournalError(SweeperError):
    """A journal that another driver holds, that is damaged, or that tells of another study."""


class MachineryError(SweeperError):
    """A cluster or a disk that failed under a running study: the same command goes on."""


class EngineError(SweeperError):
    """An engine that failed while loading or generating."""


class Infeasible(EngineError):
    """A point that cannot exist here: out of memory, or a combination the engine refuses."""


class WrongSetting(EngineError):
    """An engine that resolved to something else than the study asked for."""


class MeterError(SweeperError):
    """A meter that cannot be opened or read.

    `code` is the reason code that a record keeps in place of the missing number.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(f"{code}: {detail}")
