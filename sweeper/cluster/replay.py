"""How long a pool is busy with leases of known lengths, by the admission of real trials.

Pure: the pool's own accounting, with a clock that jumps from one end of a lease to the next.
"""

import heapq
from collections.abc import Mapping, Sequence

from sweeper.cluster.pool import Node, Pool, Request


def makespan_s(
    requests: Sequence[Request],
    lengths_s: Mapping[str, float],
    nodes: Sequence[Node],
    max_gpus: int | None = None,
) -> float:
    """When the last lease ends, all of them asked for at once; those that fit nowhere are left out.

    `lengths_s` says by id how long each is really held, where `expected_s` only orders.
    """
    pool = Pool(nodes, max_gpus=max_gpus)
    for request in requests:
        pool.submit(request, 0.0)
    ends: list[tuple[float, str]] = []
    now_s = 0.0
    while True:
        while (place := pool.admit(now_s)) is not None:
            heapq.heappush(ends, (now_s + lengths_s[place.request.id], place.request.id))
        if not ends:
            return now_s
        now_s = ends[0][0]
        while ends and ends[0][0] == now_s:
            pool.release(heapq.heappop(ends)[1])
