"""In place of a meter where no counter of this host is that of the work."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.errors import MeterError
from sweeper.meters import Reading


class Unattributable:
    """Reads nothing, and says why: a server runs elsewhere, or nobody told on which GPUs.

    It is no choice of a study (`meters.METERS`): performance is measured as ever, and every window
    has the reason `not_attributable` in place of joules.
    """

    source = "none"
    measured = False
    method = "none"
    scope = "none"
    systematic: float | None = None
    min_window_s = 0.0
    waits = False

    def __init__(self, why: str) -> None:
        self._why = why

    def open(self) -> Mapping[str, Any]:
        """No device."""
        return {"gpus": []}

    def read(self) -> Reading:
        """Never gives a reading.

        Raises:
            MeterError: `not_attributable`, always.
        """
        raise MeterError("not_attributable", self._why)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing: there is no device to be free."""
        return {}

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """None is kept."""
        return ()

    def close(self) -> None:
        """There is nothing to let go of."""
