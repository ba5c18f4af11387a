"""Admission against a simulated cluster: nothing twice, nothing idle, no starvation."""

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.cluster.pool import PATIENCE_S, Node, Place, Pool, Request, Room, need


def node(name: str, gpus: int, cpus: float = 64.0) -> Node:
    devices = tuple(str(index) for index in range(gpus)) or ("cpu",)
    return Node(id=name, host=name, devices=devices, gpus=gpus, cpus=cpus)


def nodes(*gpus: int) -> list[Node]:
    return [node(f"n{index}", count) for index, count in enumerate(gpus)]


def request(name: str, width: int, expected_s: float = 10.0) -> Request:
    return Request(id=name, width=width, expected_s=expected_s)


@dataclass
class Simulation:
    """Runs requests to their end on a pool; each takes exactly the time expected of it."""

    pool: Pool
    arrivals: list[tuple[float, Request]]
    started: dict[str, Place] = field(default_factory=dict)
    now_s: float = 0.0

    def run(self) -> float:
        ends: list[tuple[float, str]] = []
        arrivals = sorted(self.arrivals, key=lambda item: item[0])
        while arrivals or ends:
            times = [arrivals[0][0]] if arrivals else []
            times += [ends[0][0]] if ends else []
            self.now_s = min(times)
            while ends and ends[0][0] <= self.now_s:
                self.pool.release(heapq.heappop(ends)[1])
            while arrivals and arrivals[0][0] <= self.now_s:
                self.pool.submit(arrivals.pop(0)[1], self.now_s)
            while (place := self.pool.admit(self.now_s)) is not None:
                assert place.request.id not in self.started
                self.started[place.request.id] = place
                heapq.heappush(ends, (place.until_s, place.request.id))
                self.check()
        return self.now_s

    def check(self) -> None:
        held = self.pool.held.values()
        for at in self.pool.nodes.values():
            here = [place for place in held if place.node.id == at.id]
            assert sum(place.width for place in here) <= len(at.devices)
            assert sum(place.cpus for place in here) <= at.cpus + 1e-6
        assert sum(place.width for place in held) <= self.pool.max_gpus


widths = st.sampled_from([1, 1, 1, 2, 2, 4])
jobs = st.lists(st.tuples(widths, st.floats(1.0, 500.0), st.floats(0.0, 300.0)), max_size=30)
shapes = st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4)


@given(jobs, shapes, st.none() | st.integers(4, 12))
def test_never_too_much_and_everything_that_can_run_runs(
    jobs: list[tuple[int, float, float]], shape: list[int], max_gpus: int | None
) -> None:
    pool = Pool(nodes(*shape), max_gpus=max_gpus)
    arrivals = [
        (at_s, request(f"r{index}", width, expected_s))
        for index, (width, expected_s, at_s) in enumerate(jobs)
    ]
    simulation = Simulation(pool, arrivals)
    simulation.run()
    possible = {r.id for _, r in arrivals if r.width <= max(shape)}
    assert set(simulation.started) == possible
    assert set(pool.homeless()) == {r.id for _, r in arrivals} - possible
    assert pool.held == {}


@given(st.lists(widths, min_size=1, max_size=20), shapes)
def test_backfill_leaves_nothing_idle_that_somebody_waits_for(
    wanted: list[int], shape: list[int]
) -> None:
    pool = Pool(nodes(*shape))
    for index, width in enumerate(wanted):
        pool.submit(request(f"r{index}", width), 0.0)
    started = {}
    while (place := pool.admit(1.0)) is not None:
        started[place.request.id] = place
    free = {
        at.id: len(at.devices) - sum(p.width for p in started.values() if p.node.id == at.id)
        for at in pool.nodes.values()
    }
    waiting = [width for index, width in enumerate(wanted) if f"r{index}" not in started]
    assert all(width > max(free.values()) for width in waiting)


def test_largest_gpu_seconds_first_not_widest_first() -> None:
    pool = Pool(nodes(4))
    for name, width, expected_s in (("wide", 4, 10.0), ("long", 1, 100.0), ("small", 1, 5.0)):
        pool.submit(request(name, width, expected_s), 0.0)
    order = []
    while (place := pool.admit(0.0)) is not None:
        order.append(place.request.id)
    assert order == ["long", "small"]


def test_tightest_node_is_taken_so_that_wide_trials_keep_their_room() -> None:
    pool = Pool(nodes(4, 2))
    pool.submit(request("narrow", 1), 0.0)
    place = pool.admit(0.0)
    assert place is not None
    assert place.node.id == "n1"


@pytest.mark.parametrize("max_gpus", [None, 4])
def test_a_wide_trial_is_not_starved_by_a_stream_of_narrow_ones(max_gpus: int | None) -> None:
    pool = Pool(nodes(4, 4), max_gpus=max_gpus)
    arrivals = [(0.0, request(f"first{index}", 1, 100.0 + 3 * index**2)) for index in range(8)]
    arrivals += [(t * 13.0, request(f"next{t}", 1, 100.0)) for t in range(1, 150)]
    arrivals.append((1.0, request("wide", 4, 10.0)))
    simulation = Simulation(pool, arrivals)
    simulation.run()
    waited_s = simulation.started["wide"].since_s
    assert PATIENCE_S < waited_s < PATIENCE_S + 450.0


def test_a_reservation_leaves_the_rest_of_its_node_to_others() -> None:
    pool = Pool(nodes(4), patience_s=10.0)
    for index in range(3):
        pool.submit(request(f"old{index}", 1, 1000.0), 0.0)
        assert pool.admit(0.0) is not None
    pool.submit(request("pair", 2, 900.0), 0.0)
    pool.submit(request("late0", 1, 1.0), 0.0)
    assert pool.admit(0.0) is not None, "late0 passes the pair"
    assert pool.admit(11.0) is None, "now a place is kept for the pair"
    pool.submit(request("late1", 1, 1.0), 11.0)
    pool.release("old0")
    place = pool.admit(12.0)
    assert place is not None
    assert place.request.id == "late1", "two of four may still go to others"
    pool.submit(request("late2", 1, 1.0), 12.0)
    pool.submit(request("late3", 1, 1.0), 12.0)
    pool.release("old1")
    assert pool.admit(13.0) is not None
    pool.release("old2")
    assert pool.admit(14.0) is None, "but no third"
    pool.release("late0")
    place = pool.admit(15.0)
    assert place is not None
    assert place.request.id == "pair"


def test_an_avoided_node_is_used_only_when_no_other_could() -> None:
    pool = Pool(nodes(4, 2))
    pool.submit(Request(id="a", width=2, expected_s=1.0, avoided=frozenset({"n1"})), 0.0)
    place = pool.admit(0.0)
    assert place is not None
    assert place.node.id == "n0"
    pool.submit(Request(id="b", width=4, expected_s=1.0, avoided=frozenset({"n0"})), 0.0)
    pool.release("a")
    place = pool.admit(0.0)
    assert place is not None
    assert place.node.id == "n0"


def test_an_avoided_node_stays_avoided_while_the_other_is_busy() -> None:
    pool = Pool(nodes(2, 2))
    pool.submit(Request(id="a", width=2, expected_s=1.0, avoided=frozenset({"n1"})), 0.0)
    assert pool.admit(0.0, {"n1": Room(2, 64)}) is None


def test_what_other_people_hold_is_not_ours() -> None:
    pool = Pool(nodes(4))
    pool.submit(request("a", 2), 0.0)
    assert pool.admit(0.0, {"n0": Room(1, 64)}) is None
    assert pool.admit(0.0, {"n0": Room(4, 1)}) is None
    assert pool.admit(0.0, {}) is None
    assert pool.admit(0.0, {"n0": Room(2, 64)}) is not None


def test_a_dead_node_makes_homeless_and_frees_its_reservation() -> None:
    pool = Pool(nodes(4, 1), patience_s=1.0)
    pool.submit(request("a", 1, 100.0), 0.0)
    pool.submit(request("b", 1, 90.0), 0.0)
    pool.submit(request("wide", 4, 1.0), 0.0)
    while pool.admit(0.0) is not None:
        pass
    pool.submit(request("c", 1, 1.0), 0.0)
    pool.admit(0.0)
    pool.admit(5.0)
    pool.update(nodes(4, 1)[1:])
    assert pool.homeless() == ["wide"]
    pool.release("a")
    pool.update([node("n1", 1), node("n2", 4)])
    place = pool.admit(6.0)
    assert place is not None
    assert (place.request.id, place.node.id) == ("wide", "n2")


def test_whole_nodes_and_cpus() -> None:
    small = node("n0", 4, cpus=2.0)
    assert need(request("a", 1), small) == Room(1, 0.5)
    assert need(request("a", 4), small) == Room(4, 2)
    assert need(request("a", 2), node("n0", 4, cpus=64.0)) == Room(2, 6)
    assert need(request("a", 1), node("n0", 0, cpus=7.0)) == Room(1, 7)
    exclusive = Request(id="a", width=1, expected_s=1.0, whole_node=True)
    assert need(exclusive, small) == Room(4, 2)
    assert need(exclusive, node("n0", 4, cpus=64.0)) == Room(4, 64)
    assert need(replace(exclusive, cpus=3), small) == Room(4, 3)
    assert need(replace(exclusive, cpus=3), node("n0", 4, cpus=64.0)) == Room(4, 64)
    asked = Request(id="a", width=1, expected_s=1.0, cpus=3)
    assert need(asked, small) == Room(1, 3)
    pool = Pool([small])
    pool.submit(asked, 0.0)
    assert pool.homeless() == ["a"]


def test_a_cpu_node_holds_one_trial_at_a_time() -> None:
    pool = Pool([node("n0", 0, cpus=8.0), node("n1", 0, cpus=2.0)])
    for name in ("a", "b", "c"):
        pool.submit(request(name, 1), 0.0)
    places = [pool.admit(0.0) for _ in range(3)]
    assert {place.node.id for place in places if place} == {"n0", "n1"}
    assert places[2] is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_makespan_is_near_the_lower_bound(seed: int) -> None:
    random_ = random.Random(seed)
    shape = random_.choice([[8], [8, 8], [4, 4], [8, 8, 8, 8]])
    total = sum(shape)
    chosen = random_.choices([1, 2, 4], weights=[60, 25, 15], k=total * 6)
    arrivals = [
        (0.0, request(f"r{index}", width, random_.lognormvariate(4.0, 0.6)))
        for index, width in enumerate(chosen)
    ]
    area = sum(r.width * r.expected_s for _, r in arrivals) / total
    longest = max(r.expected_s for _, r in arrivals)
    pool = Pool(nodes(*shape), patience_s=math.inf)
    assert Simulation(pool, arrivals).run() <= 1.25 * max(area, longest)


def test_waiting_counts_for_something() -> None:
    pool = Pool(nodes(1))
    pool.submit(request("old", 1, 10.0), 0.0)
    pool.submit(request("new", 1, 50.0), 100.0)
    place = pool.admit(100.0)
    assert place is not None
    assert place.request.id == "old"


def test_every_order_of_submission_gives_the_same_start() -> None:
    wanted = [request("a", 4, 10.0), request("b", 2, 30.0), request("c", 1, 5.0)]
    firsts = set()
    for order in itertools.permutations(wanted):
        pool = Pool(nodes(4))
        for one in order:
            pool.submit(one, 0.0)
        place = pool.admit(0.0)
        assert place is not None
        firsts.add(place.request.id)
    assert firsts == {"b"}
