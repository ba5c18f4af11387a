"""What a launch measures next."""

from hypothesis import given
from hypothesis import strategies as st

from sweeper.spec import Point, Settings
from sweeper.trial.agenda import ListAgenda
from tests.records import make_window

GOOD = make_window()
LOST = make_window(energy_j=None, reasons=("gpu_lost: GPU-a",))
SHORT = make_window(energy_j=None, reasons=("window_too_short: 1 s",))


def points(count: int) -> list[Point]:
    return [
        Point(id=str(number), configuration="c", condition={}, chosen={}, settings=Settings())
        for number in range(count)
    ]


def run(agenda: ListAgenda, window_of=lambda point, taken: GOOD) -> tuple[list[str], list[str]]:
    visited, complete = [], []
    while (point := agenda.next()) is not None:
        visited.append(point.id)
        if agenda.tell(point, [window_of(point, visited.count(point.id))]):
            complete.append(point.id)
    return visited, complete


@given(st.integers(1, 8), st.integers(1, 5), st.integers())
def test_every_pass_visits_every_point_once(count, repeats, seed):
    visited, complete = run(ListAgenda(points(count), repeats, seed))
    for number in range(repeats):
        one_pass = visited[number * count : (number + 1) * count]
        assert sorted(one_pass, key=int) == [str(n) for n in range(count)]
    assert len(visited) == count * repeats
    assert sorted(complete, key=int) == [str(n) for n in range(count)]


def test_passes_are_shuffled_each_in_its_own_way_and_seeded():
    visited, _ = run(ListAgenda(points(8), 3, 5))
    passes = [tuple(visited[n * 8 : (n + 1) * 8]) for n in range(3)]
    assert len(set(passes)) == 3
    assert run(ListAgenda(points(8), 3, 5))[0] == visited
    assert run(ListAgenda(points(8), 3, 6))[0] != visited


def test_a_window_without_energy_is_measured_again_once_in_its_pass():
    agenda = ListAgenda(points(2), 1, 0)
    visited, complete = run(
        agenda, lambda point, taken: LOST if point.id == "0" and taken == 1 else GOOD
    )
    assert sorted(visited) == ["0", "0", "1"]
    assert visited[-1] == "0"
    assert sorted(complete) == ["0", "1"]


def test_a_point_that_never_has_energy_takes_twice_its_windows_and_is_complete():
    visited, complete = run(ListAgenda(points(1), 3, 0), lambda point, taken: LOST)
    assert len(visited) == 6
    assert complete == ["0"]


def test_a_short_window_is_not_tried_again():
    visited, complete = run(ListAgenda(points(1), 2, 0), lambda point, taken: SHORT)
    assert visited == ["0", "0"]
    assert complete == ["0"]


def test_a_dropped_point_is_not_visited_again():
    agenda = ListAgenda(points(3), 3, 0)
    first = agenda.next()
    agenda.drop(first)
    visited, complete = run(agenda)
    assert first.id not in visited
    assert len(visited) == 6
    assert len(complete) == 2


def test_with_all_points_dropped_the_agenda_is_over():
    agenda = ListAgenda(points(2), 3, 0)
    for point in points(2):
        agenda.drop(point)
    assert agenda.next() is None


def test_a_visit_is_made_again_when_any_of_its_windows_has_no_energy():
    agenda = ListAgenda(points(1), 1, 0)
    point = agenda.next()
    assert not agenda.tell(point, [GOOD, LOST])
    assert agenda.next() is point
    assert agenda.tell(point, [GOOD, GOOD])
    assert agenda.next() is None
