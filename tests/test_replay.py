"""How long a pool is busy: the pool's own admission against a clock that ticks."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sweeper.cluster.pool import Node, Request
from sweeper.cluster.replay import makespan_s


def replayed(work, nodes, most=None):
    requests = [
        Request(id=f"t{number}", width=gpus, expected_s=float(seconds))
        for number, (gpus, seconds) in enumerate(work)
    ]
    pool = [
        Node(
            id=f"n{number}",
            host="h",
            devices=tuple(str(index) for index in range(gpus)),
            gpus=gpus,
            cpus=64.0,
        )
        for number, gpus in enumerate(nodes)
    ]
    lengths_s = {request.id: request.expected_s for request in requests}
    return makespan_s(requests, lengths_s, pool, most)


POOLS = st.lists(st.integers(1, 4), min_size=1, max_size=3)
WORK = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), max_size=6)


@given(work=WORK, nodes=POOLS, most=st.none() | st.integers(1, 8))
def test_the_makespan_is_that_of_a_clock_that_ticks(work, nodes, most):
    ordered = sorted(work, key=lambda each: (-each[0] * each[1], -each[0]))
    assert replayed(work, nodes, most) == ticking(ordered, nodes, most)


def ticking(work, nodes, most):
    """Second by second: what ended lets go, then everyone in order takes the fullest node."""
    waiting, running, last = list(work), [], 0
    for now in range(sum(seconds for _, seconds in work) + 1):
        running = [each for each in running if each[0] > now]
        for gpus, seconds in list(waiting):
            free = [
                total - sum(width for _, node, width in running if node == index)
                for index, total in enumerate(nodes)
            ]
            held = sum(width for _, _, width in running)
            room = [(left, index) for index, left in enumerate(free) if left >= gpus]
            if room and (most is None or held + gpus <= most):
                running.append((now + seconds, min(room)[1], gpus))
                waiting.remove((gpus, seconds))
                last = max(last, now + seconds)
    return last


@given(
    work=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 4)), min_size=1, max_size=4),
    nodes=st.lists(st.just(2), min_size=1, max_size=2),
)
def test_the_makespan_is_no_better_than_the_best_and_not_twice_as_bad(work, nodes):
    every_order = [ticking(order, nodes, None) for order in itertools.permutations(work)]
    assert min(every_order) <= replayed(work, nodes) <= 2 * min(every_order)


def test_expectations_order_and_lengths_count():
    nodes = [Node(id="n", host="h", devices=("0",), gpus=1, cpus=4.0)]
    requests = [Request(id=name, width=1, expected_s=10.0) for name in "ab"]
    assert makespan_s(requests, {"a": 3.0, "b": 4.0}, nodes) == 7.0
    assert makespan_s([], {}, nodes) == 0.0
