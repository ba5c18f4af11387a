"""What the nodes of a study spent beside the GPUs of its launches, as answers show it (pure)."""

from collections.abc import Iterable

from sweeper.answers.best import Answer
from sweeper.results.components import COMPONENTS
from sweeper.results.record import Record

SHOWN = (
    *(f"{name}_energy_per_output_token_j" for name in COMPONENTS),
    "beside_energy_share",
)


def component_metrics(answer: Answer) -> list[str]:
    """The metrics of components that any result of the answer has."""
    return [
        metric
        for metric in SHOWN
        if any(result.value(metric) is not None for result in answer.group.results)
    ]


def missing_components(records: Iterable[Record]) -> list[str]:
    """Why components that were asked for have no numbers, with how many points that is true of."""
    points: dict[str, set[str]] = {}
    names = {f"{name}_energy": what for name, what in COMPONENTS.items()}
    for record in records:
        for check in record.checks:
            if check.name in names and not check.ok:
                points.setdefault(f"{names[check.name]}: {check.detail}", set()).add(record.id)
    return [f"{why} ({len(of)} points)" for why, of in sorted(points.items())]
