import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import JournalError
from sweeper.results.record import ACCEPTED, Check, Record
from tests.records import make_record, make_window

FULL = make_record(
    "p1",
    launch=2,
    stage="screen",
    windows=(
        make_window(0),
        replace(make_window(1, energy_j=None), phase="prefill", evidence={"a": [1, {"b": 2.0}]}),
    ),
    checks=(Check(name="idle", ok=False, detail="12 W"),),
    undersampled=("ttft_p99_s",),
    attempt=3,
)
NEEDED = [
    "id", "configuration", "launch", "stage", "study", "trial_id", "attempt", "status", "reason",
    "config", "chosen", "condition", "convention", "gpus", "environment", "started_at", "ended_at",
]  # fmt: skip


def through_json(record):
    return json.loads(json.dumps(record.to_json(), allow_nan=False))


@pytest.mark.parametrize("record", [FULL, make_record("p", windows=(), energy=None)])
def test_a_record_comes_back_from_json_as_it_was(record):
    again = Record.from_json(through_json(record))
    assert again == record
    assert isinstance(again.windows, tuple)
    assert Record.from_json(record.to_json()) == record


def test_a_line_of_the_journal_is_a_record_with_its_kind():
    assert Record.from_json({"kind": "record", **through_json(FULL)}) == FULL


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (FULL, "status"),
        (FULL.windows[0], "energy_j"),
        (FULL.energy, "measured"),
        (FULL.checks[0], "ok"),
    ],
)
def test_what_was_measured_cannot_be_changed_nor_its_fields_be_mixed_up(part, name):
    with pytest.raises(FrozenInstanceError):
        setattr(part, name, None)
    with pytest.raises(TypeError, match="positional"):
        type(part)(*(getattr(part, spec.name) for spec in fields(part)))


def test_a_window_lasts_from_edge_to_edge_and_is_metered_from_reading_to_reading():
    window = replace(make_window(started_s=100.0, duration_s=30.0), readings=({"t_s": 5.0},))
    assert (window.duration_s, window.metered_s) == (30.0, 30.0)
    readings = ({"t_s": 5.0}, {"t_s": 9.0}, {"t_s": 12.5})
    assert replace(window, readings=readings).metered_s == 7.5
    assert replace(window, readings=readings[:2]).metered_s == 4.0
    assert replace(window, readings=()).metered_s == 30.0


def test_a_sound_window_has_no_reason_and_discards_nothing():
    window = make_window()
    assert (window.reasons, window.reason, window.discarded_j) == ((), None, None)


def test_a_discarded_window_still_tells_joules_unless_a_reason_voids_them():
    window = replace(make_window(energy_j=2000.0), energy_j=None)
    unbalanced = replace(window, reasons=("requests_failed: 1", "unbalanced: 2 for 1"))
    assert unbalanced.reason == "requests_failed: 1; unbalanced: 2 for 1"
    assert unbalanced.discarded_j == 2000.0
    assert replace(unbalanced, readings=unbalanced.readings[:1]).discarded_j is None
    assert replace(window, reasons=("counter_reset: x", "unbalanced: y")).discarded_j is None


def test_the_key_leaves_out_the_attempt():
    assert FULL.key == ("p1", 2, "screen")


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("ok", True),
        ("energy_invalid", True),
        ("wrong_setting", True),
        ("infeasible", True),
        ("failed", False),
    ],
)
def test_all_but_failed_is_a_verdict(status, verdict):
    assert replace(FULL, status=status).accepted is verdict
    assert (status in ACCEPTED) is verdict


@pytest.mark.parametrize("name", NEEDED)
def test_a_record_that_lacks_a_key_is_named(name):
    data = through_json(FULL)
    del data[name]
    with pytest.raises(JournalError, match=rf"record .*: its Record lacks {name}"):
        Record.from_json(data)


def test_what_may_be_absent_takes_its_default():
    data = through_json(FULL)
    for spec in fields(Record):
        if spec.name not in (*NEEDED, "schema_version"):
            del data[spec.name]
    record = Record.from_json(data)
    assert (record.windows, record.energy, record.load_s) == ((), None, None)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data.update(colour="red"), "record p1 2 screen 3: .* has unknown colour"),
        (lambda data: data["windows"][1].pop("samples"), "p1 2 screen 3: its Window lacks samples"),
        (lambda data: data["windows"][1].pop("reasons"), "p1 2 screen 3: its Window lacks reasons"),
        (lambda data: data["windows"][1].update(reasons="r"), "reasons of a Window of record p1"),
        (lambda data: data["windows"][1].update(phase="night"), "has the unknown phase 'night'"),
        (lambda data: data["windows"][0].update(x=1), "p1 2 screen 3: its Window has unknown x"),
        (lambda data: data["energy"].pop("scope"), "p1 2 screen 3: its Energy lacks scope"),
        (lambda data: data["checks"][0].pop("ok"), "p1 2 screen 3: its Check lacks ok"),
        (lambda data: data.update(windows=5), "windows of record p1 2 screen 3 must be a list"),
        (lambda data: data.update(checks={}), "checks of record p1 2 screen 3 must be a list"),
        (lambda data: data.update(undersampled="p"), "undersampled of record p1 .* be a list"),
        (lambda data: data.update(windows=[7]), "p1 2 screen 3: a Window must be a mapping"),
        (lambda data: data.update(energy="nvml"), "p1 2 screen 3: a Energy must be a mapping"),
        (lambda data: data.update(status="fine"), "p1 2 screen 3 has the unknown status 'fine'"),
        (lambda data: data.update(schema_version=1), "p1 2 screen 3 is of schema 1, .* reads 2"),
        (lambda data: data.pop("schema_version"), "p1 2 screen 3 is of schema None"),
        (lambda data: data["energy"].update(kind="x"), "its Energy has unknown kind"),
    ],
)
def test_a_spoilt_record_is_named_with_what_is_wrong(spoil, said):
    data = through_json(FULL)
    spoil(data)
    with pytest.raises(JournalError, match=said):
        Record.from_json(data)


@given(st.data())
def test_whatever_keys_go_missing_the_error_is_the_journals(data):
    plain = through_json(FULL)
    for name in data.draw(st.sets(st.sampled_from(sorted(plain)), min_size=1)):
        del plain[name]
    if {*NEEDED, "schema_version"} <= set(plain):
        Record.from_json(plain)
    else:
        with pytest.raises(JournalError):
            Record.from_json(plain)
