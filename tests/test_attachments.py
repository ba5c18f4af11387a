import gzip
import io
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import JournalError
from sweeper.results.attachments import LIMIT_BYTES, belongs, file_name, pack_log
from sweeper.results.journal import Journal
from sweeper.results.power import pack_trace, trace_parquet, unpack_trace

TRACE = [(tick / 10, device, 100.0 + tick) for tick in range(80) for device in ("GPU-a", "GPU-b")]


@pytest.mark.parametrize("name", ["a.gz", "x-1_2.power.csv.gz"])
def test_a_plain_name_stays(name):
    assert file_name(name) == name


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_any_name_becomes_a_file_name_of_its_own(names):
    made = [file_name(name) for name in names]
    assert made[0] != made[1]
    for name in made:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name)
        assert len(name) <= 130


def test_attachments_have_a_limit_and_an_owner_that_exists(tmp_path):
    with Journal.open(tmp_path, "name: x\n") as journal:
        with pytest.raises(JournalError, match="has 8388609 bytes, the limit is 8388608"):
            journal.attach("log", b"x" * (LIMIT_BYTES + 1))
        with pytest.raises(JournalError, match=r"can be of trial_id, .* not colour"):
            journal.attach("log", b"x", of={"colour": "red"})
        assert journal.contents.attachments == ()
        stored = journal.attach("../../etc/passwd", b"x" * LIMIT_BYTES)
        journal.attach("../../etc/passwd", b"second")
    assert [path.name for path in (tmp_path / "attachments").iterdir()] == [stored]
    assert (tmp_path / "attachments" / stored).read_bytes() == b"second"


def test_what_a_killed_driver_left_half_written_is_removed(tmp_path):
    Journal.open(tmp_path, "name: x\n").close()
    (tmp_path / "attachments").mkdir()
    leftovers = [tmp_path / ".abc.tmp", tmp_path / "attachments" / ".def.tmp"]
    kept = tmp_path / "attachments" / "log.tmp"
    for path in (*leftovers, kept):
        path.write_text("x")
    Journal.open(tmp_path, "name: x\n").close()
    assert [path.exists() for path in (*leftovers, kept)] == [False, False, True]


def test_an_attachment_belongs_to_the_records_with_the_values_it_names():
    of = {"trial_id": "t", "attempt": 1, "launch": 0, "stage": "full", "id": "p"}
    assert belongs({"trial_id": "t", "attempt": 1, "name": "n"}, of)
    assert belongs({"trial_id": "t", "id": "p"}, of)
    assert not belongs({"trial_id": "t", "attempt": 0}, of)
    assert not belongs({"trial_id": "t", "configuration": "c"}, of)
    assert not belongs({"name": "n"}, of)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**12).map(lambda t: t / 10**6),
            st.sampled_from(["GPU-a", "GPU,b", "cpu 0"]),
            st.integers(0, 10**6).map(lambda w: w / 1000),
        ),
        max_size=30,
    )
)
def test_a_power_trace_comes_back_to_the_microsecond_and_milliwatt(samples):
    assert unpack_trace(pack_trace(samples)) == samples


def test_a_long_power_trace_is_thinned_evenly_and_alike_for_each_device():
    packed = pack_trace(TRACE, limit_bytes=len(pack_trace(TRACE)) - 1)
    samples = unpack_trace(packed)
    assert samples == [sample for sample in TRACE if round(sample[0] * 10) % 2 == 0]
    with pytest.raises(JournalError, match="does not fit 3 bytes"):
        pack_trace(TRACE, limit_bytes=3)


@pytest.mark.parametrize(
    "data", [b"x", gzip.compress(b"t,watts\n"), gzip.compress(b"t_s,device,watts\n1,2\n"),
             gzip.compress(b""), pack_trace(TRACE)[:-9]],
    ids=["no gzip", "another header", "a short row", "nothing", "cut off"],
)  # fmt: skip
def test_a_damaged_power_trace_is_told(data):
    with pytest.raises(JournalError, match="power trace"):
        unpack_trace(data)


@given(
    st.lists(st.integers(0, 1000).map(lambda t: t / 100), max_size=20),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=4),
)
def test_samples_inside_windows_are_those_between_the_edges(times, edges):
    import pyarrow.parquet as pq

    samples = [(t, "d", 1.0) for t in times]
    spans = [(index, min(edge), max(edge)) for index, edge in enumerate(edges)]
    expected = [(i, *s) for i, low, high in spans for s in samples if low <= s[0] and s[0] <= high]
    table = pq.read_table(io.BytesIO(trace_parquet(pack_trace(samples), spans)))
    assert table.column_names == ["window", "t_s", "device", "watts"]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected


@pytest.mark.parametrize("size", [0, 1, 5000, 400_000])
def test_a_log_that_fits_is_kept_whole(size):
    log = random.Random(0).randbytes(size)
    packed = pack_log(log, limit_bytes=len(gzip.compress(log)))
    assert gzip.decompress(packed) == log
    assert packed == pack_log(log, limit_bytes=10**6)


def test_a_long_log_keeps_its_start_and_more_of_its_end_and_says_so():
    log = random.Random(0).randbytes(100_000).hex().encode()
    packed = pack_log(log, limit_bytes=60_000)
    assert 25_000 < len(packed) <= 60_000
    head, cut, tail = gzip.decompress(packed).split(b"\n")
    assert cut == b"[... the middle of this log was cut out, it was too long ...]"
    assert len(head) + len(tail) == 100_000
    assert 6 < len(tail) / len(head) < 8
    assert log.startswith(head)
    assert log.endswith(tail)


def test_a_log_for_which_there_is_no_room_says_at_least_so():
    assert (
        gzip.decompress(pack_log(b"x" * 10**6, limit_bytes=0)).strip().startswith(b"[... the mid")
    )
