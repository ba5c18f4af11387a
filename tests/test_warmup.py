"""When a point has been run long enough."""

from hypothesis import given
from hypothesis import strategies as st

from sweeper.spec import TEMPERATURE_S, WarmupSpec
from sweeper.trial.warmup import FIRST_MOST_S, LATER_MOST_S, STEADY_C, Batch, settled

BOUNDS = WarmupSpec(min_batches=3, max_batches=6)


def batches(*durations_s: float, celsius=None) -> list[Batch]:
    """Batches in a row; `celsius` gives the temperature of one device after each."""
    found, now_s = [], 100.0
    for number, duration_s in enumerate(durations_s):
        now_s += duration_s
        heat = {} if celsius is None else {"GPU-a": celsius[number]}
        found.append(Batch(duration_s, now_s, heat))
    return found


def test_warm_up_ends_when_two_batches_take_the_same_time():
    assert not settled(batches(1.0, 1.0), BOUNDS, False)
    assert settled(batches(2.0, 1.0, 1.0), BOUNDS, False)
    assert settled(batches(2.0, 1.0, 1.04), BOUNDS, False)
    assert not settled(batches(1.0, 1.0, 1.06), BOUNDS, False)
    assert settled(batches(1.0, 2.0, 1.0, 2.0, 1.0, 2.0), BOUNDS, False)
    assert not settled([], BOUNDS, True)
    assert settled(batches(1.0), BOUNDS, True)


def test_warm_up_goes_on_while_the_temperature_moves():
    steady = batches(*[1.0] * 9, celsius=[40, 47, 52, 55, 55, 55, 56, 56, 56])
    assert [settled(steady[:count], BOUNDS, False) for count in (3, 5, 8, 9)] == [
        False,  # not as long as the look-back
        False,  # 40 to 55 within it
        False,  # 52 to 56
        True,  # 55 to 56
    ]


def test_a_temperature_that_never_rests_is_not_waited_for_for_ever():
    climbing = batches(*[1.0] * 40, celsius=[30.0 + 2 * n for n in range(40)])
    first = next(n for n in range(41) if settled(climbing[:n], BOUNDS, False))
    later = next(n for n in range(41) if settled(climbing[:n], BOUNDS, True))
    assert (first, later) == (FIRST_MOST_S, LATER_MOST_S)


def test_the_temperature_is_looked_at_over_one_long_batch_too():
    assert not settled(batches(8.0, 8.0, 8.0, celsius=[40, 50, 60]), BOUNDS, False)
    assert settled(batches(8.0, 8.0, 8.0, celsius=[40, 59, 60]), BOUNDS, False)


@given(
    st.lists(st.tuples(st.floats(0.1, 4.0), st.floats(30, 90)), min_size=1, max_size=30),
    st.booleans(),
)
def test_what_is_settled_has_rested_or_has_been_waited_for(run, visited):
    """Against the definition, written out over every pair of looks."""
    found = batches(*[s for s, _ in run], celsius=[c for _, c in run])
    if not settled(found, BOUNDS, visited):
        return
    ran_s = sum(s for s, _ in run)
    since_s = found[-1].ended_s - TEMPERATURE_S
    recent = [each.temperature_c["GPU-a"] for each in found if each.ended_s >= since_s]
    rested = ran_s >= TEMPERATURE_S - 1e-9 and max(recent) - min(recent) <= STEADY_C
    assert rested or ran_s >= (LATER_MOST_S if visited else FIRST_MOST_S) - 1e-9
