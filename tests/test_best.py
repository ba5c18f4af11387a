import pytest

from sweeper.answers.best import answers
from sweeper.answers.criteria import Limit, judge, minimizing, parse_where, study_limits
from sweeper.answers.quality import alters_output
from sweeper.answers.results import results
from sweeper.errors import StudyError
from sweeper.spec import Settings, Study
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, two_objectives

ENERGY, LATENCY = "energy_per_output_token_j", "latency_mean_s"


def study(**fields):
    return Study(name="a_study", settings=Settings(), **fields)


def launched(name, energies, latency=1.0, **fields):
    """A point with as many launches as there are energies."""
    return [
        make_record(name, launch=number, metrics=two_objectives(energy, latency), **fields)
        for number, energy in enumerate(energies)
    ]


def only(records, **fields):
    (found,) = answers(records, study(**fields))
    return found


def test_best_is_the_least_energy_among_those_within_the_limits():
    records = [
        make_record("cheap", metrics=two_objectives(1.0, 9.0)),
        make_record("right", metrics=two_objectives(2.0, 2.0)),
        make_record("quick", metrics=two_objectives(3.0, 1.0)),
    ]
    found = only(records, limits={LATENCY: 2.0})
    assert found.best.id == "right"
    assert [result.id for result in found.front] == ["cheap", "right", "quick"]
    assert found.nearest_miss is None
    assert found.why == (
        "least energy_per_output_token_j, 2.00 J/token, among the 2 of 3 results that meet "
        "latency_mean_s <= 2.00 s (by value: one launch gives no interval)"
    )


def test_a_limit_is_met_with_the_upper_end_of_the_interval():
    def point(name, energy, *latencies):
        return [
            make_record(name, launch=number, metrics=two_objectives(energy, latency))
            for number, latency in enumerate(latencies)
        ]

    wide, narrow = point("wide", 1.0, 1.0, 1.9), point("narrow", 2.0, 1.5, 1.5)
    found = only([*wide, *narrow], limits={LATENCY: 2.0})
    assert found.best.id == "narrow"
    assert "(with their whole interval)" in found.why
    verdict = judge(results(wide)[0], Limit(LATENCY, 2.0, upper=True))
    assert (verdict.ok, verdict.basis) == (False, "interval")
    assert verdict.value == pytest.approx(1.45 + 12.706204736 * 0.45)
    lower = judge(results(wide)[0], Limit(LATENCY, 0.5, upper=False))
    assert not lower.ok
    assert lower.value < 0


def test_missing_and_undersampled_metrics_meet_no_limit():
    limits = {"tpot_p99_s": 0.05}
    unknown = make_record("unknown", metrics=two_objectives(1.0, 1.0))
    few = make_record(
        "few", metrics=two_objectives(2.0, 1.0, tpot_p99_s=0.01), undersampled=["tpot_p99_s"]
    )
    enough = make_record("enough", metrics=two_objectives(3.0, 1.0, tpot_p99_s=0.04))
    assert only([unknown, few, enough], limits=limits).best.id == "enough"
    found = only([unknown, few], limits=limits)
    assert found.best is None
    assert found.nearest_miss.result.id == "few"
    assert "too few samples" in found.why
    assert "tpot_p99_s is not known" in only([unknown], limits=limits).why


def test_ties_are_shown_and_go_to_fewer_gpus():
    records = [
        *launched("four", [1.00, 1.04, 1.02], gpus=4),
        *launched("one", [1.03, 1.05, 1.01], gpus=1),
        *launched("apart", [5.0, 5.1, 5.0], gpus=1),
    ]
    found = only(records)
    assert found.best.id == "one"
    assert [result.id for result in found.ties] == ["four"]
    assert "tied for the least energy_per_output_token_j with four" in found.why
    assert "fewest GPUs (1)" in found.why


def test_without_intervals_only_equal_values_tie():
    close = only([*launched("four", [1.0], gpus=4), *launched("one", [1.0001], gpus=1)])
    assert (close.best.id, close.ties) == ("four", ())
    equal = only([*launched("four", [1.0], gpus=4), *launched("one", [1.0], gpus=1)])
    assert equal.best.id == "one"


def test_without_limits_it_is_the_least_energy_and_a_knee():
    records = [
        make_record(name, metrics=two_objectives(*place))
        for name, place in {"a": (1, 100), "b": (2, 5), "c": (100, 1)}.items()
    ]
    found = only(records)
    assert (found.best.id, found.knee.id) == ("a", "b")
    assert "no limits are set; the knee of the front is b" in found.why
    swapped = only(records, objectives={LATENCY: "min", ENERGY: "min"})
    assert swapped.best.id == "a"
    bounded = only(records, objectives={LATENCY: "min", ENERGY: "min"}, limits={LATENCY: 200})
    assert bounded.best.id == "c"
    speed = only(records, objectives={LATENCY: "min"})
    assert speed.best.id == "c"


def test_a_maximised_first_objective():
    records = [
        make_record(name, metrics=two_objectives(1, 1, output_tokens_per_s=rate))
        for name, rate in {"slow": 10.0, "fast": 20.0}.items()
    ]
    found = only(records, objectives={"output_tokens_per_s": "max"})
    assert found.best.id == "fast"
    assert found.why.startswith("most output_tokens_per_s, 20.0 tokens/s")


def test_the_nearest_miss_has_the_smallest_worst_excess():
    limits = {LATENCY: 1.0, "requests_per_s": 100.0}
    records = [
        make_record("even", metrics=two_objectives(9, 1.25, requests_per_s=85.0)),
        make_record("uneven", metrics=two_objectives(1, 1.0, requests_per_s=50.0)),
        make_record("blind", metrics=two_objectives(1, 0.5)),
    ]
    found = only(records, limits=limits)
    assert found.best is None
    miss = found.nearest_miss
    assert miss.result.id == "even"
    assert miss.worst.excess == pytest.approx(0.25)
    assert found.why == (
        "nothing meets the limits; nearest is even: latency_mean_s: the value, 1.25 s, is 25 % "
        "above the limit (latency_mean_s <= 1.00 s)"
    )
    below = only(records[1:2], limits=limits).why
    assert "50 % below the limit (requests_per_s >= 100 requests/s)" in below


def test_what_changes_the_output_is_not_recommended_unless_allowed():
    records = [
        make_record("fp8", metrics=two_objectives(1, 1), config={"engine.quantization": "fp8"}),
        make_record("plain", metrics=two_objectives(2, 1)),
    ]
    found = only(records)
    assert found.best.id == "plain"
    assert "1 more are quality: unchecked" in found.why
    assert only(records, quality="unchecked_ok").best.id == "fp8"
    alone = only(records[:1], limits={LATENCY: 5.0})
    assert alone.best is None
    assert alone.nearest_miss.result.id == "fp8"
    assert "engine.quantization may change what the model says" in alone.why


@pytest.mark.parametrize(
    ("config", "chosen", "altered"),
    [
        ({"engine.quantization": None, "engine.kv_cache_dtype": "auto"}, {}, ()),
        ({"engine.quantization": "awq"}, {}, ("engine.quantization",)),
        ({"engine.kv_cache_dtype": "fp8"}, {}, ("engine.kv_cache_dtype",)),
        ({"engine.kv_cache_dtype": "bfloat16", "engine.dtype": "bfloat16"}, {}, ()),
        ({"engine.speculative": None}, {}, ()),
        ({"engine.speculative": {"kind": "ngram"}}, {}, ()),
        ({"engine.speculative.kind": "draft"}, {}, ()),
        ({"engine.speculative": {"kind": "stated"}}, {}, ("engine.speculative",)),
        ({"engine.speculative.kind": "stated"}, {}, ("engine.speculative",)),
        ({"workload.decoding": {"kind": "beam"}}, {}, ()),
        (
            {"workload.decoding": {"kind": "beam", "width": 4}},
            {"workload.decoding": {"kind": "beam", "width": 4}},
            ("workload.decoding",),
        ),
        ({"workload.decoding": {"kind": "greedy"}}, {"workload.decoding": {}}, ()),
    ],
)
def test_what_alters_the_output(config, chosen, altered):
    assert alters_output(config, chosen) == altered


def test_an_answer_for_each_condition_also_for_one_without_results():
    short, long = {"workload.input_tokens": 128}, {"workload.input_tokens": 8192}
    records = [
        make_record("a", metrics=two_objectives(1, 1), condition=short),
        make_record("b", status="infeasible", reason="out of memory", condition=long),
        make_record("c", status="failed", reason="node lost", condition=short),
    ]
    first, second = answers(records, study())
    assert (first.group.condition, first.best.id) == (short, "a")
    assert (second.group.condition, second.best, second.front) == (long, None, ())
    assert second.why.startswith("nothing was measured")


def test_estimates_say_so_and_get_an_answer_of_their_own():
    records = [
        make_record("real", metrics=two_objectives(2, 1), energy=MEASURED),
        make_record("guess", metrics=two_objectives(1, 1), energy=ESTIMATED),
        make_record("model", metrics=two_objectives(1, 1), energy=SIMULATED),
    ]
    measured, *others = answers(records, study())
    assert measured.best.id == "real"
    assert "not measured" not in measured.why
    assert ["estimate, not measured" in other.why for other in others].count(True) == 1
    assert ["simulation, not measured" in other.why for other in others].count(True) == 1


def test_no_result_with_the_objective():
    record = make_record("a", status="energy_invalid", metrics=two_objectives(1, 1))
    found = only([record], limits={LATENCY: 2.0})
    assert (found.best, found.nearest_miss) == (None, None)
    assert found.why == "none of 1 results has energy_per_output_token_j"


def test_where_bounds_the_front_and_the_best():
    records = [
        make_record("cheap", metrics=two_objectives(1.0, 9.0)),
        make_record("right", metrics=two_objectives(2.0, 2.0)),
    ]
    (found,) = answers(records, study(), where=parse_where(["latency_mean_s<=2"]))
    assert [result.id for result in found.front] == ["right"]
    assert found.best.id == "right"


def test_objectives_of_the_command_line():
    records = [make_record("a", metrics=two_objectives(1, 9, ttft_p99_s=1.0))]
    aims = minimizing(["ttft_p99_s"], study().objectives)
    assert list(aims) == ["ttft_p99_s", ENERGY, LATENCY]
    (found,) = answers(records, study(limits={LATENCY: 10.0}), objectives=aims)
    assert found.why.startswith("least ttft_p99_s")
    kept = minimizing([ENERGY], {"output_tokens_per_s": "max", ENERGY: "max"})
    assert kept == {ENERGY: "min", "output_tokens_per_s": "max"}
    with pytest.raises(StudyError, match="ttft_p99_s"):
        minimizing(["ttft_p99"], {})


def test_limits_of_the_study_and_of_the_command_line():
    given = study(limits={LATENCY: 2.0, "requests_per_s": 4.0})
    assert study_limits(given, parse_where([" latency_mean_s <= 3 ", "latency_mean_s>=1e-1"])) == (
        Limit(LATENCY, 3.0, upper=True),
        Limit("requests_per_s", 4.0, upper=False),
        Limit(LATENCY, 0.1, upper=False),
    )


def test_every_fault_of_where_is_told_at_once():
    with pytest.raises(StudyError) as caught:
        parse_where(["latency_mean_s<2", "tpot_p98_s<=1", "latency_mean_s<=soon", "x<=nan"])
    assert len(caught.value.faults) == 4
    assert "tpot_p99_s" in caught.value.faults[1]


def test_a_bound_of_zero_has_an_absolute_excess():
    (result,) = results([make_record("a", metrics=two_objectives(1, 2.0))])
    assert judge(result, Limit(LATENCY, 0.0, upper=True)).excess == 2.0
    assert judge(result, Limit(LATENCY, 2.0, upper=True)).ok


def test_an_objective_that_was_asked_for_decides_even_without_limits():
    records = [
        make_record("cheap", metrics=two_objectives(1.0, 9.0)),
        make_record("quick", metrics=two_objectives(3.0, 1.0)),
    ]
    (unasked,) = answers(records, study())
    aims = minimizing([LATENCY], study().objectives)
    (asked,) = answers(records, study(), objectives=aims)
    assert (unasked.best.id, asked.best.id) == ("cheap", "quick")
