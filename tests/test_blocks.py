"""Blocks: who is in them, in which order, and what of them counts."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.best import answers
from sweeper.answers.finalists import finalists
from sweeper.answers.savings import savings
from sweeper.blocks import blocks, comparisons, left, order, promise, whole
from sweeper.cluster.attempts import keys
from sweeper.plan import expand, sizes_of
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from sweeper.search.finals import chosen_blocks
from sweeper.spec import BudgetSpec, FinalistsSpec, Launch, Point, Study, Trial
from tests.contract_search import LENGTH, SIZE, WIDTH, World, axis, measured, study
from tests.records import make_record

JOULES = "energy_per_output_token_j"


def with_blocks(given_: Study, count: int = 3, blocks: int = 6, **fields: Any) -> Study:
    measure = replace(given_.settings.measure, finalists=FinalistsSpec(count=count, blocks=blocks))
    return replace(given_, settings=replace(given_.settings, measure=measure), **fields)


def record_of(trial: Trial, launch: Launch, point: Point) -> Record:
    """What a lease makes of a point: as in the contract, of its launch's stage and GPUs."""
    made = measured(trial, launch, point)
    return replace(made, stage=launch.stage, attempt=trial.attempt, gpus=launch.gpus)


def accepted(records: list[Record]) -> dict[Any, Record]:
    return Contents(records=tuple(records)).accepted()


@given(
    st.sets(st.integers(0, 46), min_size=1, max_size=8),
    st.integers(1, 12),
)
def test_every_block_has_what_is_compared_exactly_once(places: set[int], count: int) -> None:
    whole_study = with_blocks(study(), blocks=count)
    points = expand(whole_study)[0]
    compared = [points[place % len(points)] for place in sorted(places)]
    made = blocks(whole_study, compared)
    assert len(made) == count == len({block.id for block in made})
    every = [key for block in made for key in keys(block)]
    assert len(every) == len(set(every)), "no key comes twice"
    for number, block in enumerate(made):
        assert Counter(p.id for launch in block.launches for p in launch.points) == Counter(
            point.id for point in compared
        )
        assert block.gpus == max(point.settings.engine.gpus for point in compared)
        for launch in block.launches:
            [configuration] = {point.configuration for point in launch.points}
            alike = [point for point in points if point.configuration == configuration]
            assert (launch.number, launch.stage) == (number, "final")
            assert launch.sizes == sizes_of(alike), "as in the launches before"
        configurations = [launch.points[0].configuration for launch in block.launches]
        assert len(configurations) == len(set(configurations))
        assert len({launch.seed for launch in block.launches}) == 1, "the same requests for all"
    assert len({block.launches[0].seed for block in made}) == count


@given(st.integers(1, 7), st.integers(1, 4), st.text(max_size=5))
def test_in_a_round_of_blocks_everything_is_launched_at_every_place_once(
    count: int, rounds: int, seed: str
) -> None:
    names = [f"c{number}" for number in range(count)]
    told = [order(names, number, seed) for number in range(count * rounds)]
    for turn in range(rounds):
        of_round = told[turn * count : (turn + 1) * count]
        assert all(sorted(one) == names for one in of_round)
        for place in range(count):
            assert sorted(one[place] for one in of_round) == names
        assert len({tuple(one) for one in of_round}) == count


def test_orders_are_of_chance_and_do_not_depend_on_how_many_blocks_there_are() -> None:
    names = [f"c{number}" for number in range(5)]
    assert len({tuple(order(names, 0, str(seed))) for seed in range(40)}) > 20
    few, many = (blocks(with_blocks(study(), blocks=n), expand(study())[0][:9]) for n in (2, 6))
    assert few == many[:2]


def test_finalists_are_the_best_of_each_condition_within_the_limits_and_what_they_are_against() -> (
    None
):
    given_ = with_blocks(study(lengths=(128, 512)), count=2, baseline={WIDTH: 1})
    records = World(replace(given_, settings=study().settings)).run().records
    found = finalists(records, given_)
    assert len(found) == 2
    for answer, ids in zip(answers(records, given_), found, strict=True):
        by_id = {result.id: result for result in answer.group.results}
        assert by_id.keys() >= set(ids)
        within = [r for r in by_id.values() if r.metrics["latency_mean_s"] <= 1.0]
        best = sorted(within, key=lambda r: r.metrics[JOULES])[:2]
        assert list(ids[:2]) == [each.id for each in best]
        assert answer.best is not None
        assert answer.best.id == ids[0]
        against = {s.result.id: s.baseline.id for s in savings(answer.group, given_, (), ())}
        assert list(ids[2:]) == list(
            dict.fromkeys(
                partner
                for name in ids[:2]
                if (partner := against.get(name)) and partner not in ids[:2]
            )
        )
        assert all(by_id[name].config.get(WIDTH) == 1 for name in ids[2:])


def test_an_interval_that_crosses_a_limit_keeps_nobody_out_of_the_finals() -> None:
    given_ = with_blocks(study())
    points = expand(given_)[0][:2]
    values = {points[0].id: (0.8, 1.1), points[1].id: (0.9, 1.3)}
    records = [
        make_record(
            point.id,
            launch=launch,
            metrics={JOULES: 1.0, "latency_mean_s": seconds},
            chosen=point.chosen,
        )
        for point in points
        for launch, seconds in enumerate(values[point.id])
    ]
    assert finalists(records, given_) == ((points[0].id,),), "a mean of 1.1 s is beyond it"


def test_records_of_blocks_do_not_choose_other_finalists() -> None:
    given_ = with_blocks(study(), count=2)
    records = World(study()).run().records
    [ids] = finalists(records, given_)
    worse = [
        make_record(name, stage="final", metrics={JOULES: 99.0, "latency_mean_s": 9.0})
        for name in ids
    ]
    assert finalists([*records, *worse], given_) == (ids,)


@pytest.mark.parametrize("kind", ["grid", "random"])
def test_a_search_ends_in_the_blocks_of_its_finalists(kind: str) -> None:
    budget = BudgetSpec(launches=9) if kind == "random" else BudgetSpec()
    given_ = with_blocks(study(kind, budget=budget), baseline={WIDTH: 1})
    world = World(given_, measure=record_of).run()
    final = [trial for trial in world.asked if trial.block]
    before = [trial for trial in world.asked if not trial.block]
    assert world.asked == [*before, *final], "blocks come last"
    assert kind == "grid" or len(before) == 9, "and are no part of the budget"
    assert world.search.finished
    assert len(final) == 6
    screened = [record for record in world.records if record.stage == "full"]
    [ids] = finalists(screened, given_)
    for block in final:
        assert {key[0] for key in keys(block)} == set(ids)
        assert whole(block, accepted(world.records))
    for answer in answers(world.records, given_):
        assert answer.best is not None
        assert (answer.best.stage, answer.best.launches) == ("final", 6)


@pytest.mark.parametrize("kind", ["grid", "random"])
@pytest.mark.parametrize("steps", [1, 4, 11, 14])
def test_a_later_sitting_ends_what_is_left_of_the_blocks(kind: str, steps: int) -> None:
    given_ = with_blocks(study(kind, lengths=(128, 512)), count=2, blocks=4)
    first = World(given_, measure=record_of).run(steps=steps)
    leases = tuple(
        {"kind": "trial", "trial_id": t.id, "attempt": 0, "stage": t.launches[0].stage}
        for t in first.asked
    )
    before = Contents(records=tuple(first.records), trials=leases)
    second = World(given_, before=before, measure=record_of, seed=1).run()
    again = [record.key for record in (*first.records, *second.records)]
    assert len(again) == len(set(again)) == len(expand(given_)[0]) + 2 * 4 * 2
    third = World(given_, before=Contents(records=(*first.records, *second.records)))
    assert third.search.finished, "at once: nothing is started for it"


def test_a_block_that_was_cut_is_measured_again_as_a_whole() -> None:
    given_ = with_blocks(study(), blocks=2)
    made = chosen_blocks(given_, Contents(records=tuple(World(study()).run().records)))
    done = [record_of(b, launch, p) for b in made for launch in b.launches for p in launch.points]
    assert left(made, accepted(done)) == ()
    assert left(made, accepted(done[1:])) == made[:1]
    mixed = [replace(done[0], attempt=1), *done[1:]]
    assert left(made, accepted(mixed)) == made[:1], "two leases are no block"


def test_more_blocks_go_on_from_those_there_are_and_fewer_finalists_are_there_already() -> None:
    records = World(study()).run().records
    screened = Contents(records=tuple(records))
    made = chosen_blocks(with_blocks(study(), blocks=2), screened)
    done = accepted(
        [record_of(b, launch, p) for b in made for launch in b.launches for p in launch.points]
    )
    more = chosen_blocks(with_blocks(study(), blocks=4), screened)
    assert left(more, done) == more[2:]
    fewer = chosen_blocks(with_blocks(study(), count=2, blocks=2), screened)
    assert left(fewer, done) == ()
    wider = chosen_blocks(with_blocks(study(), count=4, blocks=2), screened)
    assert left(wider, done) == wider


def test_where_nothing_meets_the_limits_there_are_no_blocks() -> None:
    given_ = with_blocks(study(), limits={"latency_mean_s": 1e-9})
    world = World(given_, measure=record_of).run()
    assert world.search.finished
    assert not any(trial.block for trial in world.asked)


def test_conditions_and_conventions_are_compared_apart() -> None:
    points = expand(study(lengths=(128, 512)))[0]
    groups = comparisons(points)
    assert [len(group) for group in groups] == [len(points) // 2] * 2
    assert {p.condition[LENGTH] for p in groups[0]} == {128}
    both = replace(study(), axes=(axis("workload.batching", "static", "continuous"),))
    assert len(comparisons(expand(both)[0])) == 2


def test_what_is_to_come_is_promised_in_words() -> None:
    points = expand(study())[0]
    assert promise(study(), points) is None
    assert promise(with_blocks(study()), points) == "6 blocks of the 3 finalists"
    one = with_blocks(study(), count=1, blocks=1, baseline={SIZE: 1})
    both = expand(study(lengths=(128, 512)))[0]
    assert promise(one, both) == (
        "1 block of the finalist of each of 2 conditions, with what their savings are against"
    )
