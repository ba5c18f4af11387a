"""What is left after deaths, against a brute-force world in which some points always kill."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.cluster.attempts import (
    POINT_DEATHS,
    TRIAL_DEATHS,
    Course,
    Death,
    begun,
    died,
    keys,
    recorded,
    remaining,
    restricted,
)
from sweeper.cluster.dispatch import HOMELESS_S, Dispatcher
from sweeper.cluster.pool import Node, Pool
from sweeper.cluster.probe import differences
from sweeper.results.record import Key
from sweeper.spec import Launch, Point, ResourcesSpec, Settings, Sizes, Trial
from tests.searches import Listed

SIZES = Sizes(max_model_len=8, max_batch_size=1, batch_sizes=(1,))


def point(name: str) -> Point:
    return Point(id=name, configuration="c", condition={}, chosen={}, settings=Settings())


def trial(name: str, *launches: Sequence[str], gpus: int = 1) -> Trial:
    return Trial(
        id=name,
        gpus=gpus,
        launches=tuple(
            Launch(number=number, stage="full", sizes=SIZES, points=tuple(map(point, points)))
            for number, points in enumerate(launches)
        ),
        expected_s=100.0,
    )


def accepted(key: Key, status: str = "ok") -> dict[str, Any]:
    return {"kind": "record", "id": key[0], "launch": key[1], "stage": key[2], "status": status}


def left(course: Course) -> list[Key]:
    rest = remaining(course)
    return [] if rest is None else keys(rest)


def test_a_death_costs_only_what_has_no_record() -> None:
    course = Course(trial=trial("t", ["a", "b", "c", "d"]), attempts=1)
    course = recorded(course, accepted(("b", 0, "full")))
    course = recorded(course, accepted(("c", 0, "full"), "infeasible"))
    course = died(course, Death(node_id="n1", reason="x", point=("a", 0, "full")))
    rest = remaining(course)
    assert rest is not None
    assert keys(rest) == [("a", 0, "full"), ("d", 0, "full")]
    assert rest.expected_s == pytest.approx(50.0)
    assert (rest.id, rest.attempt) == ("t", 1)
    assert course.avoided == {"n1"}


def test_a_point_in_progress_at_two_deaths_is_failed_alone() -> None:
    course = Course(trial=trial("t", ["a", "b"]))
    death = Death(node_id="n", reason="x", point=("a", 0, "full"))
    course = died(course, death)
    assert ("a", 0, "full") in left(course)
    course = died(course, death)
    assert course.given_up == {("a", 0, "full")}
    assert left(course) == [("b", 0, "full")]


def test_three_deaths_between_launches_fail_the_whole_trial() -> None:
    course = Course(trial=trial("t", ["a", "b"], ["a"]))
    course = recorded(course, accepted(("b", 0, "full")))
    for count in range(TRIAL_DEATHS):
        assert remaining(course) is not None, count
        course = died(course, Death(node_id="n", reason="x"))
    assert remaining(course) is None
    assert course.given_up == {("a", 0, "full"), ("a", 1, "full")}


def test_a_death_while_at_a_recorded_point_is_nobodys_fault() -> None:
    course = Course(trial=trial("t", ["a", "b"]))
    course = recorded(course, accepted(("a", 0, "full")))
    for _ in range(TRIAL_DEATHS):
        course = died(course, Death(node_id="n", reason="x", point=("a", 0, "full")))
    assert course.given_up == {("b", 0, "full")}


def test_the_same_point_of_another_launch_counts_apart() -> None:
    course = Course(trial=trial("t", ["a"], ["a"]))
    for number in (0, 1):
        course = died(course, Death(node_id="n", reason="x", point=("a", number, "full")))
    assert course.given_up == frozenset()


def test_failed_records_are_tried_once_more() -> None:
    course = Course(trial=trial("t", ["a", "b"]))
    course = recorded(course, accepted(("a", 0, "full"), "failed"))
    assert left(course) == [("a", 0, "full"), ("b", 0, "full")]
    rest = remaining(course, failed_only=True)
    assert rest is not None
    assert keys(rest) == [("a", 0, "full")], "an agenda may have had no need of b"
    course = recorded(course, accepted(("a", 0, "full"), "failed"))
    assert remaining(course, failed_only=True) is None


def test_restricted_drops_empty_launches() -> None:
    kept = restricted(trial("t", ["a", "b"], ["c"]), [("c", 1, "full")], attempt=2)
    assert [launch.number for launch in kept.launches] == [1]
    assert kept.attempt == 2


class World:
    """Runs leases at once: a point in `deadly` always kills, a trial in `doomed` dies at load."""

    def __init__(self, trials: Sequence[Trial], deadly: set[str], doomed: set[str]) -> None:
        self.deadly = deadly
        self.doomed = doomed
        self.events: list[tuple[Trial, dict[str, Any]]] = []
        nodes = [
            Node(id=name, host=name, devices=("0", "1"), gpus=2, cpus=8.0) for name in ("n0", "n1")
        ]
        self.dispatcher = Dispatcher(
            Listed(trials),
            Pool(nodes),
            ResourcesSpec(),
            lambda trial, event: self.events.append((trial, event)),
            lambda trial: trial.attempt,
            clock=lambda: 0.0,
        )

    def run(self) -> None:
        for _ in range(10_000):
            if self.dispatcher.finished:
                return
            lease = self.dispatcher.next()
            assert lease is not None
            self.live(lease.id, lease.trial)
        raise AssertionError("it never ends")

    def live(self, lease_id: str, trial: Trial) -> None:
        hear = self.dispatcher.hear
        if trial.id in self.doomed:
            hear(lease_id, [{"kind": "phase", "phase": "load", "point": None}])
            self.dispatcher.close(lease_id, "the node is gone")
            return
        for launch in trial.launches:
            for one in launch.points:
                hear(lease_id, [{"kind": "phase", "phase": "pass", "point": one.id}])
                if one.id in self.deadly:
                    hear(lease_id, [{"kind": "death", "reason": "hang", "point": one.id}])
                    self.dispatcher.close(lease_id)
                    return
                hear(lease_id, [accepted((one.id, launch.number, launch.stage))])
            hear(lease_id, [{"kind": "launched"}])
        self.dispatcher.close(lease_id)


names = st.sampled_from("abcdef")


@given(
    st.lists(
        st.lists(st.lists(names, min_size=1, unique=True), min_size=1, max_size=3), max_size=5
    ),
    st.sets(names),
    st.sets(st.sampled_from("01234")),
)
def test_every_point_gets_one_verdict(
    shape: list[list[list[str]]], deadly: set[str], doomed: set[str]
) -> None:
    trials = [trial(str(index), *launches) for index, launches in enumerate(shape)]
    world = World(trials, deadly, doomed)
    world.run()
    for one in trials:
        told = [event for of, event in world.events if of.id == one.id]
        records = [(e["id"], e["launch"], e["stage"]) for e in told if e["kind"] == "record"]
        given_up = [
            key
            for of, e in world.events
            if of.id == one.id and e["kind"] == "given_up"
            for key in keys(of)
        ]
        assert sorted(records + given_up) == sorted(keys(one))
        bad = {key for key in keys(one) if key[0] in deadly or one.id in doomed}
        assert set(given_up) == bad
        deaths = sum(event["kind"] == "death" for event in told)
        of_launches = TRIAL_DEATHS * len(one.launches)
        assert deaths == (of_launches if one.id in doomed else POINT_DEATHS * len(bad))


def test_a_retry_goes_to_another_node() -> None:
    world = World([trial("t", ["a", "b"])], {"a"}, set())
    first = world.dispatcher.next()
    assert first is not None
    world.live(first.id, first.trial)
    second = world.dispatcher.next()
    assert second is not None
    assert second.place.node != first.place.node
    assert second.trial.attempt == 1


def test_a_lease_that_never_began_counts_for_nothing() -> None:
    world = World([trial("t", ["a"])], set(), set())
    for _ in range(5):
        lease = world.dispatcher.next()
        assert lease is not None
        assert lease.trial.attempt == 0
        world.dispatcher.withdraw(lease.id)
    world.run()
    assert [event["kind"] for _, event in world.events] == ["phase", "record", "launched"]


def test_a_lost_actor_blames_the_point_it_was_told_of() -> None:
    world = World([trial("t", ["a", "b"])], set(), set())
    for _ in range(POINT_DEATHS):
        lease = world.dispatcher.next()
        assert lease is not None
        world.dispatcher.hear(lease.id, [{"kind": "phase", "phase": "pass", "point": "b"}])
        world.dispatcher.close(lease.id, "lost")
    of, event = world.events[-1]
    assert event == {"kind": "given_up", "points": ["b"], "reason": "lost"}
    assert keys(of) == [("b", 0, "full")]
    deaths = [event for _, event in world.events if event["kind"] == "death"]
    assert [death["point"] for death in deaths] == ["b", "b"]
    assert {death["node_id"] for death in deaths} == {"n0", "n1"}
    world.run()
    assert world.events[-2][1]["id"] == "a"


def test_a_trial_that_no_node_can_hold_any_more_is_given_up() -> None:
    now = [0.0]
    told: list[tuple[Trial, dict[str, Any]]] = []
    wide = replace(trial("wide", ["a", "b"]), gpus=4)
    nodes = [Node(id="n", host="n", devices=("0",), gpus=1, cpus=1.0)]
    dispatcher = Dispatcher(
        Listed([wide]),
        Pool(nodes),
        ResourcesSpec(),
        lambda trial, event: told.append((trial, event)),
        lambda trial: trial.attempt,
        clock=lambda: now[0],
    )
    assert dispatcher.next() is None
    now[0] = HOMELESS_S
    assert dispatcher.next() is None
    assert told == []
    now[0] = HOMELESS_S + 1
    assert dispatcher.next() is None
    assert dispatcher.finished
    assert told[0][1]["points"] == ["a", "b"]


def test_nodes_that_differ_are_named() -> None:
    def row(host: str, **versions: str) -> dict[str, Any]:
        return {"host": host, "versions": {"python": "3.11.7", **versions}}

    seen = [row("a", torch="2.13.0"), row("b", torch="2.14.0"), row("c", mlflow="3.17.2")]
    assert differences(seen) == ["torch: 2.13.0 on a; 2.14.0 on b; missing on c"]
    assert differences(seen[:1]) == []


def block(name: str, *launches: Sequence[str]) -> Trial:
    """A trial whose launches, one of each configuration, are compared."""
    return Trial(
        id=name,
        gpus=1,
        launches=tuple(
            Launch(
                number=0,
                stage="final",
                sizes=SIZES,
                points=tuple(replace(point(each), configuration=points[0]) for each in points),
            )
            for points in launches
        ),
        expected_s=100.0,
    )


def test_a_block_whose_lease_died_is_measured_again_as_a_whole() -> None:
    course = begun(Course(trial=block("t", ["a"], ["b"])))
    course = recorded(course, accepted(("a", 0, "final")))
    course = died(course, Death(node_id="n", reason="x", point=("b", 0, "final")))
    rest = remaining(course)
    assert rest is not None
    assert (keys(rest), rest.attempt) == ([("a", 0, "final"), ("b", 0, "final")], 1)
    course = begun(course)
    for name in "ab":
        course = recorded(course, accepted((name, 0, "final")))
    assert remaining(course) is None


def test_a_launch_that_never_loads_leaves_the_rest_of_its_block_compared() -> None:
    course = Course(trial=block("t", ["a"], ["b", "c"], ["d"]))
    for _ in range(TRIAL_DEATHS):
        course = recorded(begun(course), accepted(("a", 0, "final")))
        course = died(course, Death(node_id="n", reason="x", launch=("b", 0)))
    assert course.given_up == {("b", 0, "final"), ("c", 0, "final")}
    assert left(course) == [("a", 0, "final"), ("d", 0, "final")], "a again, beside d"


def test_a_launch_that_kills_its_lease_when_it_is_done_is_given_up_with_its_records() -> None:
    world = World([block("t", ["a"], ["b"])], set(), set())
    for _ in range(TRIAL_DEATHS):
        lease = world.dispatcher.next()
        assert lease is not None
        world.dispatcher.hear(lease.id, [accepted(("a", 0, "final"))])
        world.dispatcher.close(lease.id, "the driver of the GPU is gone")
    assert "given_up" not in [event["kind"] for _, event in world.events], "it has a record"
    world.run()
    assert world.events[-2][1]["id"] == "b"


@given(
    st.lists(st.lists(names, min_size=1, unique=True), min_size=1, max_size=4),
    st.sets(names),
    st.integers(0, 3),
)
def test_what_stands_of_a_block_is_of_one_lease(
    shape: list[list[str]], deadly: set[str], losses: int
) -> None:
    unique = [[f"{place}{name}" for name in points] for place, points in enumerate(shape)]
    one = block("t", *unique)
    bad = {key for key in keys(one) if key[0][1:] in deadly}
    world = World([one], {key[0] for key in bad}, set())
    for _ in range(losses):
        # The node is lost when the last launch begins.
        lease = world.dispatcher.next()
        if lease is None:
            break
        for launch in lease.trial.launches[:-1]:
            done = [accepted((p.id, 0, "final")) for p in launch.points]
            world.dispatcher.hear(lease.id, [*done, {"kind": "launched"}])
        world.dispatcher.close(lease.id, "the node is gone")
    world.run()
    standing: dict[Key, int] = {}
    for of, event in world.events:
        if event["kind"] == "record":
            standing[event["id"], event["launch"], event["stage"]] = of.attempt
    given_up = {
        key for of, event in world.events if event["kind"] == "given_up" for key in keys(of)
    }
    assert standing.keys() | given_up == set(keys(one))
    measured = {key: standing[key] for key in keys(one) if key not in bad | given_up}
    assert len(set(measured.values())) <= 1, "the others are all of the last lease"
