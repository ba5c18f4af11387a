"""Claims of others judged by results: which ones are held against each other, and the verdict."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.claim_words import claim_object, claims_text
from sweeper.answers.claims import judged
from sweeper.answers.page_claims import claims_section
from sweeper.answers.stated import claim_as_stated as as_stated
from sweeper.spec import Axis, ExpectSpec, Settings, Study
from sweeper.study import dump
from sweeper.verify.claims import check
from sweeper.verify.pooling import pooled
from sweeper.verify.tally import Tally
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, two_objectives

WIDTH, SIZE, TOKENS = "engine.tensor_parallel", "workload.batch_size", "workload.input_tokens"
ENERGY, LATENCY = "energy_per_output_token_j", "latency_mean_s"
NOISE = (0.99, 1.0, 1.01)


def claim(change, when=None, against=None, metric=LATENCY, **more):
    return ExpectSpec(
        when={WIDTH: 2, SIZE: 1} if when is None else when,
        against={WIDTH: 1} if against is None else against,
        metric=metric,
        change=change,
        source="a paper",
        **more,
    )


def study(*claims):
    axes = ((WIDTH, (1, 2)), (SIZE, (1, 8)))
    return Study(
        name="s",
        settings=Settings(),
        axes=tuple(
            Axis(label=key, choices=tuple({key: value} for value in values)) for key, values in axes
        ),
        expect=claims,
    )


def launches(width, size, value, noise=NOISE, condition=None, boards=(), **fields):
    """One launch for each factor of `noise`, on the board of the same place in `boards`."""
    where = condition or {}
    return [
        make_record(
            f"w{width}-s{size}-{'-'.join(map(str, where.values()))}",
            launch=number,
            chosen={WIDTH: width, SIZE: size},
            condition=where,
            metrics=two_objectives(value * factor, value * factor),
            trial_id=f"t{width}-{size}-{where}-{number}",
            environment={
                "devices": {"gpus": [{"uuid": boards[number]}] if boards else []},
            },
            **fields,
        )
        for number, factor in enumerate(noise)
    ]


def sides(ours, theirs=10.0, **fields):
    return launches(2, 1, ours, **fields) + launches(1, 1, theirs, **fields)


def verdict(change, records, **fields):
    [found] = judged(study(claim(change, **fields)), records)
    return found.verdict


@pytest.mark.parametrize(
    ("change", "ours", "said"),
    [
        ("-40%", 6.0, "agrees"),
        ("-40%", 6.1, "agrees"),
        ("-40%", 7.0, "sign agrees only"),
        ("-40%", 13.0, "differs"),
        ("-40%", 10.0, "differs"),
        ("+29.3%", 12.93, "agrees"),
        ("0%", 10.05, "agrees"),
        ("0%", 12.0, "differs"),
        ("<0", 6.0, "agrees"),
        ("<0", 13.0, "differs"),
        ("<0", 10.0, "cannot be judged"),
        (">20%", 13.0, "agrees"),
        (">20%", 12.0, "cannot be judged"),
        ("-5..5%", 10.0, "agrees"),
        ("-5..5%", 13.0, "differs"),
        ("-5..5%", 10.5, "cannot be judged"),
        ("up to -40%", 6.0, "agrees"),
        ("up to -40%", 8.0, "sign agrees only"),
    ],
)
def test_a_claim_is_judged_by_the_interval(change, ours, said):
    assert verdict(change, sides(ours)) == said


def test_a_tolerance_lets_the_estimate_be_near():
    near = sides(6.4)
    assert verdict("-40%", near) == "sign agrees only"
    assert verdict("-40%", near, tolerance_points=5.0) == "agrees"
    assert verdict("-40%", near, tolerance_points=3.0) == "sign agrees only"


def test_one_launch_agrees_with_nothing():
    [found] = judged(study(claim("-40%")), sides(6.0, noise=(1.0,)))
    assert (found.verdict, found.change.percent) == ("cannot be judged", pytest.approx(-40))
    assert "one launch" in found.why


@pytest.mark.parametrize(
    ("energy", "metric", "said"),
    [
        (SIMULATED, ENERGY, "simulation"),
        (ESTIMATED, ENERGY, "estimate"),
        (ESTIMATED, LATENCY, "agrees"),
    ],
)
def test_what_no_instrument_measured_confirms_nothing(energy, metric, said):
    assert verdict("-40%", sides(6.0, energy=energy), metric=metric) == said


def test_a_simulated_engine_measures_no_latency():
    simulated = sides(6.0, energy=SIMULATED, config={"engine.kind": "simulated"})
    assert verdict("-40%", simulated) == "simulation"


def test_too_few_samples_judge_nothing():
    assert verdict("-40%", sides(6.0, undersampled=[LATENCY])) == "cannot be judged"


def test_what_the_boards_gain_could_make_is_not_judged():
    one = launches(2, 1, 6.6, boards=["a"] * 3) + launches(1, 1, 10.0, boards=["b"] * 3)
    assert verdict("-40%", one, metric=ENERGY) == "cannot be judged"
    same = launches(2, 1, 6.6, boards=["a"] * 3) + launches(1, 1, 10.0, boards=["a"] * 3)
    assert verdict("-40%", same, metric=ENERGY) == "sign agrees only"


def test_what_against_does_not_name_is_as_in_when():
    records = sides(6.0) + launches(1, 8, 1.0) + launches(2, 8, 1.0)
    [found] = judged(study(claim("-40%")), records)
    assert (found.result.id, found.against.id) == ("w2-s1-", "w1-s1-")


def test_one_value_is_not_of_several_pairs():
    records = sides(6.0) + launches(1, 8, 1.0) + launches(2, 8, 1.0)
    [found] = judged(study(claim("-40%", when={WIDTH: 2})), records)
    assert found.verdict == "cannot be judged"
    assert "several match" in found.why


def test_the_largest_of_several_is_what_up_to_means():
    records = sides(6.0) + launches(1, 8, 1.0) + launches(2, 8, 0.8)
    [found] = judged(study(claim("up to -40%", when={WIDTH: 2})), records)
    assert (found.verdict, found.pairs, found.result.id) == ("agrees", 2, "w2-s1-")


def test_a_bound_must_hold_for_all():
    records = sides(6.0) + launches(1, 8, 1.0) + launches(2, 8, 1.3)
    [found] = judged(study(claim("<0", when={WIDTH: 2})), records)
    assert (found.verdict, found.result.id) == ("differs", "w2-s8-")


def test_traffic_is_judged_apart_unless_the_claim_names_it():
    records = [
        each
        for tokens, ours in ((128, 6.0), (2048, 12.0))
        for width, value in ((1, 10.0), (2, ours))
        for each in launches(width, 1, value, condition={TOKENS: tokens})
    ]
    found = judged(study(claim("-40%")), records)
    assert {each.condition[TOKENS]: each.verdict for each in found} == {
        128: "agrees",
        2048: "differs",
    }
    [named] = judged(study(claim("-40%", when={WIDTH: 2, SIZE: 1, TOKENS: 128})), records)
    assert named.verdict == "agrees"
    [lengths] = judged(study(claim("+100%", {WIDTH: 2, TOKENS: 2048}, {TOKENS: 128})), records)
    assert (lengths.verdict, lengths.condition) == ("agrees", {})


@pytest.mark.parametrize("records", [[], launches(2, 1, 6.0), launches(1, 1, 6.0)])
def test_what_was_not_measured_is_said_and_not_judged(records):
    [found] = judged(study(claim("-40%")), records)
    assert (found.verdict, found.change) == ("cannot be judged", None)
    assert "measured" in found.why


@given(
    ours=st.lists(st.floats(1, 20), min_size=2, max_size=5),
    theirs=st.lists(st.floats(1, 20), min_size=2, max_size=5),
    published=st.integers(-90, 90),
)
def test_an_agreement_is_never_outside_the_interval(ours, theirs, published):
    records = launches(2, 1, 1.0, noise=ours) + launches(1, 1, 1.0, noise=theirs)
    [found] = judged(study(claim(f"{published:+d}%")), records)
    inside = found.change.low <= 1 + published / 100 <= found.change.high
    assert (found.verdict == "agrees") == inside
    if found.verdict == "sign agrees only":
        assert (found.change.low - 1) * published > 0
        assert (found.change.high - 1) * published > 0


CHANGES = ["-40%", "+25%", "up to -30%", "up to +30%", "<0", ">10%", "-20..20%"]


@given(
    values=st.lists(st.lists(st.floats(5, 20), min_size=1, max_size=4), min_size=4, max_size=4),
    same=st.booleans(),
    metric=st.sampled_from([ENERGY, LATENCY]),
    tolerance=st.sampled_from([0.0, 10.0]),
    energy=st.sampled_from([MEASURED, ESTIMATED]),
)
def test_verify_comes_to_the_same_by_other_code(values, same, metric, tolerance, energy):
    claims = [
        claim(change, when=when, metric=metric, tolerance_points=tolerance)
        for change in CHANGES
        for when in ({WIDTH: 2, SIZE: 1}, {WIDTH: 2})
    ]
    asked = study(*claims)
    records = [
        record
        for (width, size), noise in zip(((1, 1), (2, 1), (1, 8), (2, 8)), values, strict=True)
        for record in launches(
            width,
            size,
            1.0,
            noise=noise,
            boards=[f"b{width}" if same else f"b{number}" for number in range(4)],
            energy=energy,
        )
    ]
    tally = Tally()
    lines = [json.loads(json.dumps(record.to_json())) for record in records]
    text = yaml.safe_load(dump(asked))
    check(pooled(lines), [as_stated(each, asked) for each in judged(asked, records)], text, tally)
    assert tally.differences == []
    assert tally.compared["claims"] == 3 * len(claims) - 4


def test_a_verdict_is_said_in_text_page_and_json():
    [found] = judged(study(claim("-40%", tolerance_points=1.0)), sides(6.0))
    text = " ".join(claims_text([found], 60).split())
    assert "agrees: latency_mean_s -40% (±1 points) with tensor_parallel=2" in text
    assert "here \N{MINUS SIGN}40.0 % [" in text
    told = claim_object(found)
    assert (told["verdict"], told["published"], told["id"]) == ("agrees", "-40%", "w2-s1-")
    assert told["ci95_low"] < 0.6 < told["ci95_high"]
    page = str(claims_section([found]))
    assert "a paper" in page
    assert "<strong>agrees</strong>" in page
    assert claims_text([], 60) == ""
    assert claims_section([]) is None
