import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import JournalError
from sweeper.results import contents as module
from sweeper.results.contents import KINDS, parse, read
from tests.records import make_record


def record(name="p", launch=0, stage="full", attempt=0, status="ok"):
    return make_record(name, launch=launch, stage=stage, attempt=attempt, status=status, windows=())


def header():
    return b'{"kind":"journal","journal":"j","version":2}\n'


def as_lines(*lines):
    return header() + b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_the_first_verdict_of_a_key_counts_and_later_ones_are_duplicates():
    contents = parse(
        as_lines(
            *(
                {"kind": "record", **item.to_json()}
                for item in (
                    record("a", status="failed"),
                    record("a", attempt=1, status="infeasible"),
                    record("a", attempt=2),
                    record("a", launch=1),
                    record("a", stage="final"),
                )
            )
        )
    )
    assert {key: item.attempt for key, item in contents.accepted().items()} == {
        ("a", 0, "full"): 1,
        ("a", 1, "full"): 0,
        ("a", 0, "final"): 0,
    }
    assert contents.duplicates == 1


def test_of_a_key_without_a_verdict_the_last_attempt_stands():
    items = [record("a", attempt=n, status="failed") for n in range(3)]
    contents = parse(as_lines(*({"kind": "record", **item.to_json()} for item in items)))
    assert contents.accepted() == {}
    assert contents.standing() == (items[2],)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["record", "record", "superseded", "ended"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 1),
        st.sampled_from(["screen", "full"]),
        st.integers(0, 2),
        st.sampled_from(["ok", "infeasible", "failed"]),
    ),
    max_size=14,
)


@pytest.mark.long
@settings(max_examples=200)
@given(OPERATIONS)
def test_the_reader_agrees_with_counting_by_hand(operations):
    lines, kept, gpu_seconds = [], [], 0.0
    for number, (kind, name, launch, stage, attempt, status) in enumerate(operations):
        if kind == "record":
            item = replace(record(name, launch, stage, attempt, status), trial_id=f"t{number}")
            lines.append({"kind": "record", **item.to_json()})
            kept.append(item)
        elif kind == "superseded":
            where = {"id": name, "launch": launch, "stage": stage, "attempt": attempt}
            lines.append({"kind": "superseded", **where})
            kept = [
                item
                for item in kept
                if (item.key, item.attempt) != ((name, launch, stage), attempt)
            ]
        else:
            known = None if status == "failed" else attempt / 4
            lines.append({"kind": "ended", "trial_id": name, "gpu_seconds": known})
            gpu_seconds += known or 0.0
    contents = parse(as_lines(*lines))
    accepted, standing = {}, {}
    for key in {item.key for item in kept}:
        of_key = [item for item in kept if item.key == key]
        verdicts = [item for item in of_key if item.status != "failed"]
        if verdicts:
            accepted[key] = verdicts[0]
        standing[key] = verdicts[0] if verdicts else of_key[-1]
    assert contents.accepted() == accepted
    assert contents.standing() == tuple(sorted(standing.values(), key=kept.index))
    assert contents.duplicates == sum(item.status != "failed" for item in kept) - len(accepted)
    assert contents.gpu_seconds() == gpu_seconds
    assert len(contents.records) == sum(line["kind"] == "record" for line in lines)


def test_the_environment_is_that_of_the_last_sitting_that_noted_one():
    assert parse(as_lines()).environment() is None
    sittings = [{"environment": {"driver": 1}}, {"environment": {"driver": 2}}, {}]
    contents = parse(as_lines(*({"kind": "sitting", **sitting} for sitting in sittings)))
    assert contents.environment() == {"driver": 2}


def test_leases_whose_end_is_not_known_cost_no_invented_seconds():
    ends = [{"gpu_seconds": 1.5}, {"gpu_seconds": None}, {}, {"gpu_seconds": 2}]
    contents = parse(as_lines(*({"kind": "ended", "trial_id": "t", **end} for end in ends)))
    assert contents.gpu_seconds() == 3.5


def test_wherever_the_last_line_is_cut_the_lines_before_it_are_read():
    lines = [{"kind": "trial", "trial_id": f"t{number}"} for number in range(3)]
    data = as_lines(*lines)
    for cut in range(len(data) + 1):
        contents = parse(data[:cut])
        whole = data[:cut].count(b"\n")
        assert len(contents.trials) == max(0, whole - 1)
        assert contents.torn_bytes == cut - (data[:cut].rfind(b"\n") + 1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\0\0\0", "Expecting value"),
        (b"", "Expecting value"),
        (b'{"kind":"trial"', "Expecting"),
        (b"\xff", "utf-8"),
        (b"[1]", "not an object"),
        (b"{}", "unknown kind None"),
        (b'{"kind":["trial"]}', r"unknown kind \['trial'\]"),
        (b'{"kind":"news","x":1}', "unknown kind 'news'; this sweeper knows journal, study, torn"),
        (b'{"kind":"trial"}', "a trial without trial_id"),
        (b'{"kind":"window","id":"p","launch":0}', "a window without stage"),
        (b'{"kind":"superseded","id":"p","launch":0,"stage":"full"}', "without attempt"),
        (b'{"kind":"trial","trial_id":7}', "trial_id of a trial cannot be 7"),
        (b'{"kind":"ended","trial_id":"t","gpu_seconds":"5"}', "gpu_seconds of a ended cannot be"),
        (b'{"kind":"trial","trial_id":"t","x":NaN}', "NaN is no number"),
        (b'{"kind":"trial","trial_id":"t","x":-Infinity}', "-Infinity is no number"),
        (b'{"kind":"journal","journal":"j","version":2}', "first line, and no other"),
    ],
)
def test_a_damaged_line_is_named_with_the_way_out(line, said, tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(as_lines({"kind": "torn", "bytes": 1}) + line + b"\n")
    with pytest.raises(JournalError, match=f"journal.jsonl, line 3 is damaged: .*{said}"):
        read(path)
    with pytest.raises(JournalError, match="take the line out"):
        read(path)


def test_a_journal_of_another_version_or_none_at_all_is_refused(tmp_path):
    with pytest.raises(JournalError, match="of version 9, this sweeper reads 2"):
        parse(b'{"kind":"journal","journal":"j","version":9}\n')
    with pytest.raises(JournalError, match="line 1 is damaged: a journal's first line"):
        parse(b'{"kind":"trial","trial_id":"t"}\n')
    with pytest.raises(JournalError, match="nothing was measured there yet"):
        read(tmp_path / "journal.jsonl")
    with pytest.raises(JournalError, match="cannot read"):
        read(tmp_path)


def test_a_record_that_cannot_be_read_is_named_with_its_line():
    spoilt = {"kind": "record", **record("a").to_json()}
    del spoilt["config"]
    with pytest.raises(JournalError, match=r"line 2: record a 0 full 0: its Record lacks config"):
        parse(as_lines(spoilt))


def test_any_damage_is_either_read_or_told_as_the_journals_error():
    data = as_lines(
        {"kind": "record", **record("a").to_json()},
        {"kind": "superseded", "id": "a", "launch": 0, "stage": "full", "attempt": 0},
        {"kind": "ended", "trial_id": "t", "gpu_seconds": 1.5},
    )
    dice = random.Random(0)
    refused = 0
    for _ in range(1500):
        spoilt = bytearray(data)
        for _ in range(dice.randint(1, 3)):
            spoilt[dice.randrange(len(spoilt))] = dice.choice(b'0a"[]{},:\n\x00\xff\\ -')
        try:
            contents = parse(bytes(spoilt))
        except JournalError:
            refused += 1
        else:
            assert contents.gpu_seconds() >= 0 or contents.ended
            assert len(contents.accepted()) <= len(contents.records)
    assert refused > 100


def test_every_kind_of_line_is_explained():
    for kind in KINDS:
        assert f"\n    {kind} " in module.__doc__


def test_only_some_points_and_what_was_taken_back_of_them():
    key = {"launch": 0, "stage": "full"}
    taken_back = {"kind": "superseded", "id": "b", **key, "attempt": 0}
    lines = [{"kind": "window", "id": name, **key, "reasons": []} for name in "aba"]
    lines += [{"kind": "record", **record(name).to_json()} for name in "aba"]
    whole = parse(as_lines(*lines, taken_back))
    assert [each.id for each in whole.standing()] == ["a"]
    one = whole.only({"b"})
    assert [each.id for each in one.records] == ["b"]
    assert (one.superseded, one.standing(), len(one.windows)) == (frozenset({0}), (), 1)
    assert whole.only({"a", "b"}) == whole
