"""Asking a question on every node of a cluster, in a worker of its own there."""

from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.cluster.pool import Node
from sweeper.errors import PlaceError

Told = list[tuple[Node, Any]]
"""Each node with its answer, by host and id."""


def ask(
    question: Callable[..., Any], arguments: Mapping[Node, tuple[Any, ...]], limit_s: float
) -> Told:
    """As `told_by`, where every node has to answer.

    Raises:
        PlaceError: some do not; each is named with the reason.
    """
    told = told_by(question, arguments, limit_s)
    if silent := [str(answer) for _, answer in told if isinstance(answer, PlaceError)]:
        raise PlaceError("\n".join(silent))
    return told


def told_by(
    question: Callable[..., Any], arguments: Mapping[Node, tuple[Any, ...]], limit_s: float
) -> Told:
    """What `question` returns on each node, or the `PlaceError` that says why there is no answer.

    Its worker ends, with all that it imported.
    """
    remote = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(question)
    asked = {}
    for node, given in arguments.items():
        strategy = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
        asked[remote.options(scheduling_strategy=strategy).remote(*given)] = node
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=limit_s)
    told: Told = [
        (asked[each], PlaceError(f"{asked[each].host}: no answer within {limit_s:.0f} s"))
        for each in silent
    ]
    told += [(asked[each], _answer(each, asked[each])) for each in done]
    return sorted(told, key=lambda pair: (pair[0].host, pair[0].id))


def _answer(reference: Any, node: Node) -> Any:
    try:
        return ray.get(reference)
    except Exception as error:
        said = str(error).strip().splitlines()[-1]
        return PlaceError(f"{node.host}: cannot be asked what it is: {said}")
