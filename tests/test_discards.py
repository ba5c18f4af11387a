"""Answers with the discards included: what comes back, what stays lost, what changes."""

import html
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.best import answers
from sweeper.answers.discards import Discards, discards_of, effects, with_discards
from sweeper.answers.page_discards import discards_section
from sweeper.results.contents import Contents
from sweeper.results.metrics import is_energy, record_metrics
from sweeper.results.reasons import REASONS
from sweeper.spec import Settings, Study
from tests.records import make_record, make_window

SIZE = "workload.batch_size"
ENERGY = "energy_per_output_token_j"
HOT, LOST = "thermal_slowdown: GPU-0", "counter_reset: GPU-0 went down by 3.000 J"
SOUND = st.floats(100, 1000)
ZERO = "zero_energy: GPU-0"
STUDY = Study(name="a_study", settings=Settings())


def window(joules, *reasons, index=0, **fields):
    """A window whose readings tell `joules`, discarded where there are reasons."""
    made = make_window(index, energy_j=joules, **fields)
    if not reasons:
        return made
    kept = {name: value for name, value in made.metrics.items() if not is_energy(name)}
    return replace(made, energy_j=None, reasons=reasons, metrics=kept)


def point(name, *windows, repeats=None, **fields):
    given_ = {"measure.repeats": len(windows) if repeats is None else repeats}
    sound = sum(each.energy_j is not None for each in windows) >= given_["measure.repeats"]
    return make_record(
        name, windows=windows, config=given_, status="ok" if sound else "energy_invalid", **fields
    )


def test_a_discarded_window_gets_the_joules_of_its_readings_back():
    [made] = with_discards([point("p", window(300.0), window(500.0, HOT))])
    assert made.status == "ok"
    assert [each.energy_j for each in made.windows] == pytest.approx([300.0, 500.0])
    assert made.metrics[ENERGY] == pytest.approx(800 / 1000)
    assert made.metrics["energy_j_sd_windows"] == pytest.approx(200 / 2**0.5)
    assert made.metrics["power_mean_w"] == pytest.approx(800 / 60)


@pytest.mark.parametrize("code", [code for code, reason in REASONS.items() if reason.voids])
def test_what_was_not_read_stays_unknown(code):
    record = point("p", window(300.0), window(500.0, HOT, f"{code}: so"))
    assert with_discards([record]) == (record,)


def test_an_unknown_code_and_a_window_with_one_reading_give_nothing():
    one = replace(window(500.0, HOT), readings=window(500.0).readings[:1])
    for lost in (window(500.0, "never_heard_of: so"), one):
        record = point("p", window(300.0), lost)
        assert with_discards([record]) == (record,)


def test_a_record_that_still_has_too_few_windows_stays_without_energy():
    record = point("p", window(300.0), window(500.0, HOT), window(400.0, LOST), repeats=3)
    [made] = with_discards([record])
    assert made.status == "energy_invalid"
    [made] = with_discards([point("p", *record.windows, repeats=2)])
    assert made.status == "ok"


def test_windows_of_prefill_alone_make_no_record_whole():
    prefill = replace(window(50.0), phase="prefill")
    record = point("p", window(300.0), window(500.0, LOST), prefill, window(400.0, HOT), repeats=3)
    [made] = with_discards([replace(record, status="energy_invalid")])
    assert made.status == "energy_invalid"
    assert made.metrics[ENERGY] == pytest.approx(700 / 1000)


@given(st.lists(st.tuples(SOUND, st.booleans()), min_size=1, max_size=6))
def test_with_all_discards_back_a_record_is_as_if_nothing_had_been_discarded(told):
    record = point("p", *(window(joules, *[HOT] * bad) for joules, bad in told))
    [made] = with_discards([record])
    whole, _ = record_metrics([window(joules) for joules, _ in told], 1)
    assert made.metrics == pytest.approx(whole)
    performance = {name: value for name, value in made.metrics.items() if not is_energy(name)}
    assert performance.items() <= record.metrics.items()


def test_what_has_no_windows_to_count_stays_as_it_is():
    records = (
        make_record("a", status="infeasible", energy=None),
        make_record("b", status="failed", windows=[window(1.0, HOT)]),
        point("c", window(300.0)),
    )
    assert with_discards(records) == records


def test_windows_are_counted_by_every_code_the_gravest_first():
    records = [
        point("a", window(1.0), window(2.0, HOT, "clock_step: 3"), window(2.0, ZERO, HOT)),
        point("b", window(2.0, "clock_step: 4"), replace(window(2.0, HOT), reasons=())),
    ]
    found = discards_of(records)
    codes = {"zero_energy": 1, "thermal_slowdown": 2, "clock_step": 2}
    assert found == Discards(windows=4, usable=2, codes=codes)
    assert list(found.codes) == ["zero_energy", "thermal_slowdown", "clock_step"]


def judged(records):
    included = with_discards(records)
    return effects(answers(records, STUDY), answers(included, STUDY))


def test_discards_that_move_the_best_are_told():
    cheap = point("cheap", window(100.0, HOT))
    dear = point("dear", window(300.0))
    [effect] = judged([cheap, dear])
    assert (effect.without.best.id, effect.included.best.id) == ("dear", "cheap")
    assert effect.best_changes
    assert effect.front_changes
    [effect] = judged([replace(cheap, id="worse", windows=(window(900.0, HOT),)), dear])
    assert (effect.best_changes, effect.front_changes) == (False, False)


def test_a_condition_that_only_discards_answer_is_told():
    short = {"workload.input_tokens": 8}
    [one, other] = judged([point("p", window(1.0)), point("q", window(9.0, HOT), condition=short)])
    assert not one.best_changes
    assert (other.without.best, other.included.best.id) == (None, "q")
    assert other.best_changes


def section(joules, *reasons):
    """What a page says of a window of so many joules, discarded, beside a sound one of 300 J."""
    records = (
        point("lost", window(joules, *reasons), chosen={SIZE: 1}),
        point("sound", window(300.0), chosen={SIZE: 4}),
    )
    contents = Contents(records=records)
    text = re.sub("<[^>]*>", " ", str(discards_section(STUDY, contents, answers(records, STUDY))))
    return " ".join(html.unescape(text).split())


def test_the_page_says_what_would_change_with_the_discards():
    said = section(100.0, "thermal_slowdown: GPU-0", "unbalanced: 3")
    assert "1 of 2 windows gave no energy" in said
    assert "In 1 of them the readings still tell joules" in said
    assert "batch_size 4: 600 mJ/token batch_size 1: 200 mJ/token" in said
    assert "joined by batch_size 1; without batch_size 4" in said
    for code in ("thermal_slowdown", "unbalanced"):
        assert f"{code} 1 {REASONS[code].meaning} {REASONS[code].remedy}" in said


def test_the_page_says_where_discards_would_change_nothing():
    said = section(900.0, "thermal_slowdown: GPU-0")
    assert "batch_size 4: 600 mJ/token the same: batch_size 4: 600 mJ/token the same points" in said
    said = section(900.0, "counter_reset: GPU-0")
    assert "None of them can be included" in said
