"""The searches: one contract over all of them, and what each is for."""

import importlib.util
import statistics

import pytest

from sweeper.answers.best import answers
from sweeper.plan import Cost, expand, sizes_of
from sweeper.results.contents import Contents
from sweeper.search import SEARCHES
from sweeper.spec import BudgetSpec
from tests.contract_search import GRAPHS, SIZE, WIDTH, World, measured, study
from tests.records import make_record

ALL = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            kind == "optuna" and importlib.util.find_spec("optuna") is None,
            reason="optuna is not installed",
        ),
    )
    for kind in SEARCHES
]
CHOOSING = [each for each in ALL if each.values[0] != "grid"]
every = pytest.mark.parametrize("kind", ALL)
choosing = pytest.mark.parametrize("kind", CHOOSING)


@every
@pytest.mark.parametrize("launches", [1, 3])
@pytest.mark.parametrize("lengths", [(), (128, 512)])
def test_without_a_budget_every_point_is_measured_once_a_launch(kind, launches, lengths):
    given = study(kind, launches=launches, lengths=lengths)
    points, _ = expand(given)
    world = World(given).run()
    assert sorted(world.keys()) == sorted(
        (point.id, number, "full") for point in points for number in range(launches)
    )
    assert world.search.finished
    assert world.idle == 0, "the pool is full until the end"
    assert len({trial.id for trial in world.asked}) == len(world.asked)


@every
def test_a_launch_is_of_one_configuration_and_knows_the_sizes_of_all_its_points(kind):
    given = study(kind, lengths=(128, 512))
    points, _ = expand(given)
    for trial in World(given).run().asked:
        [launch] = trial.launches
        [configuration] = {point.configuration for point in launch.points}
        alike = [point for point in points if point.configuration == configuration]
        assert launch.sizes == sizes_of(alike)
        assert trial.gpus == launch.points[0].settings.engine.tensor_parallel
        assert trial.expected_s > 0


@every
@pytest.mark.parametrize("launches", [1, 2])
def test_a_later_sitting_measures_what_is_left_and_nothing_twice(kind, launches):
    given = study(kind, launches=launches)
    first = World(given).run(steps=5)
    before = Contents(records=tuple(first.records))
    second = World(given, before=before, seed=1).run()
    again = [record.key for record in (*first.records, *second.records)]
    points, _ = expand(given)
    assert len(again) == len(set(again)) == launches * len(points)


@every
def test_a_point_that_failed_for_good_is_not_waited_for(kind):
    given = study(kind, launches=2)

    def failing(trial, launch, point):
        if point.settings.workload.batch_size == 8:
            return make_record(point.id, launch=launch.number, status="failed", reason="node lost")
        return measured(trial, launch, point)

    world = World(given, measure=failing).run()
    assert world.search.finished
    assert len(world.keys()) == len(set(world.keys())) == 2 * len(expand(given)[0])


@choosing
@pytest.mark.parametrize("seed", range(3))
def test_a_budget_of_launches_is_kept_exactly(kind, seed):
    world = World(study(kind, budget=BudgetSpec(launches=7), seed=seed)).run()
    assert len(world.asked) == 7
    assert world.search.finished


@choosing
@pytest.mark.parametrize(
    ("budget", "leases"),
    [
        # A lease tells 1000 J and 100 s of each of its GPUs: one at a time, none begins beyond.
        (BudgetSpec(joules=4500), 5),
        (BudgetSpec(wall_s=450), 5),
    ],
)
def test_other_budgets_end_it_when_they_are_spent(kind, budget, leases):
    ended = []
    given = study(kind, budget=budget)
    world = World(given, devices=4, elapsed=lambda: 100.0 * len(ended))
    told = world.search.ended
    world.search.ended = lambda trial, lease: (ended.append(trial), told(trial, lease))
    world.run()
    assert world.search.finished
    assert leases <= len(world.asked) <= leases + 3, "those under way were not known of"


@choosing
def test_gpu_hours_count_what_is_under_way(kind):
    cost = Cost(load_s=lambda settings: 60.0, point_s=lambda settings: 240.0)
    given = study(kind, budget=BudgetSpec(gpu_hours=1.0))
    world = World(given, cost=cost)
    first = world.search.ask(1000, 0)
    held_s = [trial.gpus * trial.expected_s for trial in first]
    assert sum(held_s) >= 3600 > sum(held_s[:-1])
    assert world.search.ask(1000, len(first)) == []
    assert not world.search.finished, "they may turn out to take less"


@choosing
def test_earlier_sittings_have_spent_their_part(kind):
    given = study(kind, budget=BudgetSpec(launches=7))
    trials = tuple({"kind": "trial", "trial_id": f"t{number}"} for number in range(5))
    assert len(World(given, before=Contents(trials=trials)).run().asked) == 2


@choosing
def test_loading_is_shared_by_as_many_points_as_make_it_small(kind):
    dear = Cost(load_s=lambda settings: 300.0, point_s=lambda settings: 100.0)
    sizes: dict[str, list[int]] = {}
    for trial in World(study(kind), cost=dear).run().asked:
        points = trial.launches[0].points
        sizes.setdefault(points[0].configuration, []).append(len(points))
    # Six points make it a third of the launch; a configuration has seven or eight.
    assert sorted(sizes.values()) == [[6, 1]] * 2 + [[6, 2]] * 4
    cheap = Cost(load_s=lambda settings: 10.0, point_s=lambda settings: 100.0)
    assert {len(t.launches[0].points) for t in World(study(kind), cost=cheap).run().asked} == {1}


@choosing
def test_conditions_take_turns_and_share_launches(kind):
    given = study(kind, lengths=(128, 512, 2048), budget=BudgetSpec(launches=6))
    world = World(given).run()
    counts = [
        sum(point.condition["workload.input_tokens"] == length for point in points)
        for length in (128, 512, 2048)
        for points in [[p for t in world.asked for p in t.launches[0].points]]
    ]
    assert counts == [6, 6, 6]


@choosing
def test_the_same_seed_chooses_the_same_and_another_one_does_not(kind):
    def order(seed):
        return World(study(kind, seed=seed, budget=BudgetSpec(launches=8))).run().keys()

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.long
def test_what_cannot_exist_teaches_to_stay_away():
    """Over 12 seeds: the model chooses it less often than chance, which begins, does."""
    pytest.importorskip("optuna")

    def measure(trial, launch, point):
        if point.settings.engine.tensor_parallel == 1:
            return make_record(point.id, status="infeasible", reason="out of memory")
        return measured(trial, launch, point)

    early = late = 0
    for seed in range(12):
        sizes = tuple(range(1, 65))
        given = study("optuna", seed=seed, sizes=sizes, budget=BudgetSpec(launches=20))
        widths = [trial.gpus for trial in World(given, devices=4, measure=measure).run().asked]
        early, late = early + widths[:10].count(1), late + widths[10:].count(1)
    assert late < 2 * early / 3, (early, late)


def test_a_first_outcome_without_numbers_stops_nothing():
    pytest.importorskip("optuna")
    given = study("optuna", budget=BudgetSpec(launches=15))

    def measure(trial, launch, point):
        return make_record(point.id, status="infeasible", reason="out of memory")

    assert len(World(given, measure=measure).run().records) == 15


@pytest.mark.long
def test_optuna_comes_nearer_to_the_best_than_chance_does():
    """Over 12 seeds, with a quarter of the points."""
    pytest.importorskip("optuna")
    whole = answers(World(study("grid")).run().records, study())[0].best
    assert whole is not None
    metric = "energy_per_output_token_j"

    def regrets(kind):
        found = []
        for seed in range(12):
            given = study(kind, seed=seed, budget=BudgetSpec(launches=15))
            best = answers(World(given, devices=4, seed=seed).run().records, given)[0].best
            found.append(best.metrics[metric] / whole.metrics[metric] - 1 if best else 1.0)
        return statistics.mean(found)

    assert regrets("optuna") < regrets("random")


def test_axes_of_several_keys_and_of_words_are_choices_too():
    pytest.importorskip("optuna")
    given = study("optuna", budget=BudgetSpec(launches=30))
    values = {
        (point.chosen[WIDTH], point.chosen[GRAPHS], point.chosen[SIZE])
        for trial in World(given).run().asked
        for point in trial.launches[0].points
    }
    assert len(values) == 30
