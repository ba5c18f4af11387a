"""Goodput: requests a second that meet every limit, by two codes, from the stream to the record."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Event
from sweeper.errors import StudyError
from sweeper.plan import plan
from sweeper.results.contents import FILE, read
from sweeper.results.metrics import GOODPUT, record_metrics
from sweeper.spec import Study
from sweeper.study import load
from sweeper.trial.latency import Timeline, good_requests
from sweeper.verify import stream
from sweeper.verify.report import text
from tests.records import make_window
from tests.studies import simulated
from tests.verified import Kept, assert_verified, verified

NAMES = st.sampled_from(GOODPUT)
SECONDS = st.integers(1, 6).map(float)


def told(requests: list[tuple[float, float, float, int, bool]]) -> list[Event]:
    """Events of requests that are sent, begin and end after so long, with tokens, or fail."""
    events = []
    for index, (sent_s, first_s, decode_s, tokens, fails) in enumerate(requests):
        begun_s = sent_s + first_s
        ended_s = begun_s + (decode_s if tokens > 1 else 0.0)
        events += [
            (sent_s, 0, Event("admitted", sent_s, index)),
            (begun_s, 1, Event("first_token", begun_s, index)),
            (ended_s, 2, Event("failed" if fails else "finished", ended_s, index)),
        ]
    return [event for _, _, event in sorted(events, key=lambda each: each[:2])]


def timeline_of(events: list[Event]) -> Timeline:
    timeline = Timeline()
    for event in events:
        timeline.add(event)
    return timeline


REQUESTS = [
    (10.0, 1.0, 4.0, 5, False),  # ttft 1, tpot 1, latency 5
    (10.0, 2.0, 2.0, 5, False),  # ttft 2, tpot 0.5, latency 4
    (10.0, 2.0, 0.0, 1, False),  # ttft 2, no tpot, latency 2
    (10.0, 1.0, 1.0, 2, True),
]


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        ({"ttft_s": 2.0}, 3),
        ({"ttft_s": 1.5}, 1),
        ({"tpot_s": 0.5}, 2),
        ({"latency_s": 4.0}, 2),
        ({"ttft_s": 1.5, "tpot_s": 0.5}, 0),
        ({"ttft_s": 2.0, "tpot_s": 1.0, "latency_s": 5.0}, 3),
    ],
)
def test_the_good_are_those_within_every_limit(limits: dict[str, float], good: int) -> None:
    timeline = timeline_of(told(REQUESTS))
    lengths = {index: tokens for index, (_, _, _, tokens, _) in enumerate(REQUESTS)}
    assert good_requests(timeline, lengths, limits, 0.0, 99.0, streams=True) == good
    known = good if limits.keys() == {"latency_s"} else None
    assert good_requests(timeline, lengths, limits, 0.0, 99.0, streams=False) == known
    assert good_requests(timeline, lengths, None, 0.0, 99.0, streams=True) is None


@given(
    st.lists(st.tuples(SECONDS, SECONDS, SECONDS, st.integers(1, 4), st.booleans()), max_size=9),
    st.dictionaries(NAMES, SECONDS, min_size=1),
    SECONDS,
    SECONDS,
)
def test_both_codes_count_the_same(requests, limits, after_s, lasting_s):
    events = told(requests)
    lengths = {index: each[3] for index, each in enumerate(requests)}
    letters = {"admitted": "a", "first_token": "f", "finished": "d", "failed": "x"}
    seen = stream.Stream(
        events=[
            (letters[e.kind], e.t_s, e.request if e.request is not None else -1, 0, 0)
            for e in events
        ],
        lengths={index: (1, tokens) for index, tokens in lengths.items()},
    )
    until_s = after_s + lasting_s
    found = good_requests(timeline_of(events), lengths, limits, after_s, until_s, streams=True)
    assert found == stream.good(seen, limits, after_s, until_s)


def test_that_of_a_record_is_over_all_of_its_windows() -> None:
    windows = [
        replace(make_window(index, duration_s=seconds), evidence={"work": {"good": good}})
        for index, (seconds, good) in enumerate([(10.0, 4), (20.0, 5)])
    ]
    assert record_metrics(windows, 1)[0]["goodput_rps"] == 9 / 30
    unknown = [*windows, make_window(2)]
    assert "goodput_rps" not in record_metrics(unknown, 1)[0]


def with_limits(limits: dict[str, float] | None) -> Study:
    study = simulated()
    settings = study.settings
    measure = replace(settings.measure, goodput=limits)
    return replace(study, settings=replace(settings, measure=measure))


def test_a_study_s_goodput_is_made_again_and_a_false_one_is_found(tmp_path: Path) -> None:
    folder = Kept(with_limits({"ttft_s": 1.0, "latency_s": 2.0}), tmp_path).measure()
    assert_verified(folder)
    for record in read(folder / FILE).records:
        metrics = record.metrics
        assert metrics["goodput_rps"] == pytest.approx(metrics["requests_per_s"])
    journal = folder / FILE
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        for window in [line] if line["kind"] == "window" else line.get("windows", ()):
            window["evidence"]["work"]["good"] -= 1
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = verified(folder)
    assert not report.ok
    assert "good requests is" in text(report)


def test_what_nothing_meets_is_zero_and_not_unknown(tmp_path: Path) -> None:
    folder = Kept(with_limits({"latency_s": 1e-9}), tmp_path).measure()
    assert_verified(folder)
    assert {record.metrics["goodput_rps"] for record in read(folder / FILE).records} == {0.0}


def test_limits_of_goodput_are_part_of_a_point_and_none_are_not() -> None:
    ids = {
        name: {point.id for point in plan(with_limits(limits)).points}
        for name, limits in (("none", None), ("some", {"ttft_s": 1.0}), ("more", {"ttft_s": 2.0}))
    }
    assert len(ids["none"] | ids["some"] | ids["more"]) == 6


@pytest.mark.parametrize(
    ("goodput", "said"),
    [
        ("{}", "measure.goodput: no limit given"),
        ("{itl_s: 1}", "measure.goodput.itl_s: is no time of a request, which are ttft_s"),
        ("{ttft_s: 0}", "measure.goodput.ttft_s: 0 given, wanted: seconds above 0"),
    ],
)
def test_what_limits_nothing_is_refused(tmp_path: Path, goodput: str, said: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"model: {{shape: tiny}}\nengine: {{kind: simulated}}\nmeasure: {{goodput: {goodput}}}\n"
    )
    with pytest.raises(StudyError) as raised:
        load(str(path))
    assert said in str(raised.value)
