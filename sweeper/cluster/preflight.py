"""All that a node is asked before a study starts: can it launch these settings?"""

from collections.abc import Sequence

from sweeper.engines import access
from sweeper.spec import Settings
from sweeper.trial import gpu_access


def faults(asked: Sequence[Settings]) -> list[str]:
    """What stands against it, of engines, models and the setting of GPUs, each reason once."""
    return [*access.faults(asked), *gpu_access.faults(asked)]
