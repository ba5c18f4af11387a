import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.front import comparable, costs, dominates, front, knee, ties
from sweeper.answers.results import results
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, two_objectives

ENERGY, LATENCY, RATE = "energy_per_output_token_j", "latency_mean_s", "output_tokens_per_s"
BOTH = {ENERGY: "min", LATENCY: "min"}
SMALL = st.integers(1, 6)
"""Few values, so that ties are common."""
TRIPLES = st.lists(st.tuples(SMALL, SMALL, SMALL), max_size=14)


def result(name, joules=1.0, latency=1.0, rate=None, **fields):
    metrics = {ENERGY: joules, LATENCY: latency, RATE: rate}
    known = {key: float(value) for key, value in metrics.items() if value is not None}
    (found,) = results([make_record(name, metrics=known, **fields)])
    return found


def several(*places):
    return [result(f"p{index:02d}", *place) for index, place in enumerate(places)]


def ids(found):
    return [each.id for each in found]


def beaten(one, other, signs):
    """By the definition, for values of which bigger is worse after the sign."""
    mine = [sign * value for sign, value in zip(signs, one, strict=True)]
    yours = [sign * value for sign, value in zip(signs, other, strict=True)]
    nowhere_worse = not any(y > m for m, y in zip(mine, yours, strict=True))
    return nowhere_worse and mine != yours


@given(TRIPLES)
def test_the_front_is_what_no_other_beats(places):
    found = front(several(*places), {ENERGY: "min", LATENCY: "min", RATE: "max"})
    signs = (1, 1, -1)
    expected = {
        f"p{index:02d}"
        for index, place in enumerate(places)
        if not any(beaten(place, other, signs) for other in places)
    }
    assert set(ids(found)) == expected
    assert len(found) == len(expected)


@given(TRIPLES, st.randoms(use_true_random=False))
def test_a_front_does_not_depend_on_the_order_and_is_its_own_front(places, random):
    members = several(*places)
    expected = front(members, BOTH)
    random.shuffle(members)
    assert front(members, BOTH) == expected
    assert front(expected, BOTH) == expected


@given(TRIPLES)
def test_a_front_is_sorted_by_the_objectives_then_the_id(places):
    found = front(several(*places), BOTH)
    keys = [(each.metrics[ENERGY], each.metrics[LATENCY], each.id) for each in found]
    assert keys == sorted(keys)


def test_a_maximised_objective_comes_best_first():
    members = several((1, 1, 10), (2, 1, 30), (3, 1, 20))
    assert ids(front(members, {RATE: "max"})) == ["p01"]
    assert ids(front(members, {RATE: "max", ENERGY: "min"})) == ["p01", "p00"]
    assert ids(front(members, {ENERGY: "max"})) == ["p02"]


def test_equal_results_stay_together():
    assert ids(front(several((1, 1), (1, 1), (1, 2)), BOTH)) == ["p00", "p01"]


def test_a_result_without_an_objective_s_metric_is_not_on_the_front():
    members = [*several((2, 2)), result("bare", joules=None, latency=0.1)]
    assert ids(front(members, BOTH)) == ["p00"]
    assert ids(front(members, {LATENCY: "min"})) == ["bare"]
    assert front(members, {"ttft_p99_s": "min"}) == ()


def test_a_number_that_is_none_is_no_number():
    odd = replace(result("odd"), metrics={ENERGY: math.nan, LATENCY: 0.1})
    endless = replace(result("endless"), metrics={ENERGY: 0.1, LATENCY: math.inf})
    assert ids(front([odd, endless, *several((2, 2))], BOTH)) == ["p00"]


def test_costs_are_all_to_be_minimised():
    assert costs(result("a", 2, 3, 5), {ENERGY: "min", RATE: "max"}) == (2.0, -5.0)
    assert costs(result("a", 2, 3), {ENERGY: "min", RATE: "max"}) is None
    assert costs(result("a", 0, 3), {ENERGY: "min"}) == (0.0,)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1, 1), (1, 1), False),
        ((1, 1), (1, 2), True),
        ((1, 1), (2, 2), True),
        ((1, 2), (1, 1), False),
        ((0, 3), (3, 0), False),
        ((1,), (2,), True),
    ],
)
def test_dominance(one, other, expected):
    assert dominates(one, other) is expected


def test_dominance_needs_the_same_objectives():
    with pytest.raises(ValueError, match="zip"):
        dominates((1, 2), (1,))


def test_conditions_conventions_meters_and_scopes_are_never_compared():
    short, long = {"workload.input_tokens": 128}, {"workload.input_tokens": 1024}
    members = [
        result("a", condition=long),
        result("b", condition=short),
        result("c", condition=short, convention="whole"),
        result("d", condition=short, energy=ESTIMATED),
        result("e", condition=short, energy=SIMULATED),
        result("f", condition=short, energy=replace(MEASURED, scope="node")),
        result("g", condition=short),
        result("h", condition=short, config={"engine.kind": "simulated"}),
    ]
    groups = comparable(members)
    assert [ids(group.results) for group in groups] == [
        *(["b", "g"], ["f"], ["d"], ["e"], ["h"], ["c"], ["a"]),
    ]
    assert [group.provenance for group in groups] == [
        *("measured", "measured", "estimate", "simulation", "simulation", "measured", "measured"),
    ]
    first = groups[0]
    assert (first.condition, first.convention) == (short, "steady")
    assert (first.source, first.scope) == ("nvml", "gpu")
    assert (groups[2].source, groups[2].scope) == ("codecarbon", "node")
    assert groups[5].convention == "whole"


def test_the_same_condition_written_in_another_order_is_the_same():
    one = result("a", condition={"workload.input_tokens": 1, "workload.output_tokens": 2})
    other = result("b", condition={"workload.output_tokens": 2, "workload.input_tokens": 1})
    assert len(comparable([one, other])) == 1


def test_results_without_joules_stay_with_their_condition():
    members = [
        result("bare", joules=None, latency=1.0),
        result("full"),
        result("estimated", energy=ESTIMATED),
    ]
    members[0] = replace(members[0], energy=None)
    assert [ids(group.results) for group in comparable(members)] == [
        *(["full", "bare"], ["estimated"]),
    ]
    (alone,) = comparable(members[:1])
    assert (alone.source, alone.scope, alone.provenance) == (None, None, "measured")
    assert ids(alone.results) == ["bare"]
    assert comparable([]) == ()


def test_the_knee_is_furthest_below_the_chord_on_log_axes():
    members = several((1, 1000), (2, 30), (10, 10), (1000, 1))
    assert knee(members, BOTH).id == "p01"
    # On linear axes it would be p02; with the units of one axis changed it stays where it is.
    rescaled = several((1, 1.0), (2, 0.03), (10, 0.01), (1000, 0.001))
    assert knee(rescaled, BOTH).id == "p01"


def distance_below(place, left, right):
    """Of a point to the line through two others, positive towards the origin."""
    (x, y), (x0, y0), (x1, y1) = place, left, right
    cross = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
    return -cross / math.hypot(x1 - x0, y1 - y0)


@given(st.lists(st.tuples(st.integers(1, 10**4), st.integers(1, 10**4)), min_size=3, max_size=9))
def test_the_knee_against_the_distance_to_a_line(places):
    members = front(several(*places), BOTH)
    found = knee(members, BOTH)
    logs = [(math.log(r.metrics[ENERGY]), math.log(r.metrics[LATENCY])) for r in members]
    if len(members) < 3 or len(set(logs)) < 3:
        assert found is None
        return
    distances = [distance_below(place, logs[0], logs[-1]) for place in logs]
    if max(distances) < 1e-6:
        assert found is None or max(distances) > 0
    else:
        at = ids(members).index(found.id)
        assert math.isclose(distances[at], max(distances), rel_tol=1e-6)


def test_of_equally_far_results_the_first_is_the_knee():
    assert knee(several((1, 100), (2, 20), (2, 20), (100, 1)), BOTH).id == "p01"


def test_the_knee_of_a_maximised_objective():
    members = several((1, 1, 1), (2, 1, 60), (50, 1, 100))
    assert knee(members, {ENERGY: "min", RATE: "max"}).id == "p01"
    assert knee(members, {RATE: "max", ENERGY: "min"}).id == "p01"


def test_where_there_is_no_knee():
    straight = several((1, 100), (10, 10), (100, 1))
    bulging = several((1, 100), (90, 90), (100, 1))
    flat = several((1, 1), (1, 1), (1, 1))
    assert knee(straight, BOTH) is None
    assert knee(bulging, BOTH) is None
    assert knee(flat, BOTH) is None
    assert knee(straight[:2], BOTH) is None
    assert knee([], BOTH) is None
    three = several((1, 100, 1), (2, 3, 2), (100, 1, 3))
    assert knee(three, BOTH).id == "p01"
    assert knee(three, {ENERGY: "min"}) is None
    assert knee(three, {**BOTH, RATE: "max"}) is None
    assert knee([*three, result("bare", joules=None)], BOTH) is None
    assert knee([*three, result("zero", joules=0.0, latency=1000)], BOTH) is None


def test_a_slight_knee_is_still_one():
    assert knee(several((1, 100), (9.9, 10), (100, 1)), BOTH).id == "p01"


def test_metrics_of_the_factory_are_those_of_the_objectives():
    assert set(two_objectives(1.0, 2.0)) == set(BOTH)


TWICE = st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), max_size=8)


@given(TWICE)
def test_ties_are_those_whose_intervals_share_a_value_in_every_objective(launches):
    """Of two launches the interval is the mean and 12.7 times half of their distance about it."""
    members = [
        found
        for index, (joules, more, latency, longer) in enumerate(launches)
        for found in results(
            make_record(f"p{index}", launch=launch, metrics={ENERGY: energy, LATENCY: seconds})
            for launch, (energy, seconds) in enumerate(
                [(float(joules), float(latency)), (joules + more / 50, latency + longer / 50)]
            )
        )
    ]

    def apart(one, other, place):
        (low, step), (start, stride) = (
            launches[int(each.id[1:])][2 * place : 2 * place + 2] for each in (one, other)
        )
        means = low + step / 100, start + stride / 100
        return abs(means[0] - means[1]) > 12.7062047 * (step + stride) / 100

    shown = front(members, BOTH)
    for one, found in zip(shown, ties(shown, members, BOTH), strict=True):
        assert ids(found) == [
            other.id
            for other in members
            if other is not one and not any(apart(one, other, place) for place in (0, 1))
        ]


def test_without_intervals_only_equals_tie():
    members = several((1, 2), (1, 2), (1, 3), (2, 1))
    shown = front(members, BOTH)
    assert [ids(each) for each in ties(shown, members, BOTH)] == [["p01"], ["p00"], []]


def test_what_lacks_an_objective_ties_with_nothing():
    members = [result("a"), result("b", latency=None), result("c")]
    assert [ids(each) for each in ties(front(members, BOTH), members, BOTH)] == [["c"], ["a"]]
