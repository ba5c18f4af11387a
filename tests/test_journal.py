import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.errors import JournalError, PlaceError
from sweeper.results.contents import read
from sweeper.results.journal import Journal
from tests.records import make_record

STUDY = "name: x\nobjectives: {}\n"
LINES = {
    "sitting": {"started_at": "2026-01-01", "environment": {"driver": "1"}},
    "trial": {"trial_id": "t1", "gpus": ["GPU-1"]},
    "window": {"id": "p", "launch": 0, "stage": "full", "energy_j": 1.5, "reasons": []},
    "death": {"trial_id": "t1", "reason": "hang: ü \ud800 \n\r\x0b\u2028"},
    "ended": {"trial_id": "t1", "gpu_seconds": 12.5},
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mlruns" / "studies" / "x"


def record(name="p", launch=0, stage="full", attempt=0, status="ok"):
    return make_record(name, launch=launch, stage=stage, attempt=attempt, status=status, windows=())


def written(folder):
    return (folder / "journal.jsonl").read_bytes()


# What is written is read again


def test_what_is_appended_is_read_again_in_order(folder):
    first, second = record("a"), record("b", status="failed")
    with Journal.open(folder, STUDY) as journal:
        for kind, fields in LINES.items():
            journal.append(kind, fields)
        journal.append("record", first.to_json())
        journal.append("record", second.to_json())
        journal.attach("log", b"abc", role="engine_log", of={"trial_id": "t1", "attempt": 0})
        current = journal.contents
    contents = read(folder / "journal.jsonl")
    assert contents == current
    assert contents.records == (first, second)
    for kind, found in {
        "sitting": contents.sittings,
        "trial": contents.trials,
        "window": contents.windows,
        "death": contents.deaths,
        "ended": contents.ended,
    }.items():
        assert found == ({"kind": kind, **LINES[kind]},)
    (attachment,) = contents.attachments
    assert attachment["sha256"].startswith("ba7816bf")
    assert attachment["bytes"] == 3
    assert (folder / "attachments" / attachment["name"]).read_bytes() == b"abc"
    assert contents.torn_bytes == 0


def test_every_line_is_one_flat_object_with_its_kind_first(folder):
    with Journal.open(folder, STUDY) as journal:
        for kind, fields in LINES.items():
            journal.append(kind, fields)
    for line in written(folder).decode("ascii").splitlines():
        assert next(iter(json.loads(line))) == "kind"


def test_contents_tells_what_was_appended_since(folder):
    with Journal.open(folder, STUDY) as journal:
        assert journal.contents.accepted() == {}
        journal.append("record", record("a").to_json())
        assert set(journal.contents.accepted()) == {("a", 0, "full")}


def test_a_journal_keeps_its_identity_and_another_has_its_own(folder, tmp_path):
    identities = []
    for place in (folder, folder, tmp_path / "other"):
        with Journal.open(place, STUDY) as journal:
            identities.append(journal.contents.journal)
    assert identities[0] == identities[1] != identities[2]


def test_the_study_is_there_for_people_and_every_text_of_it_in_the_journal(folder):
    for text in (STUDY, STUDY, "name: x\n", "name: x\n"):
        with Journal.open(folder, text):
            assert (folder / "study.yaml").read_text() == text
    assert [line["text"] for line in read(folder / "journal.jsonl").studies] == [STUDY, "name: x\n"]
    (folder / "study.yaml").write_text("edited: by hand\n")
    with Journal.open(folder, "name: x\n"):
        assert (folder / "study.yaml").read_text() == "name: x\n"


def test_threads_do_not_mix_their_lines(folder):
    with Journal.open(folder, STUDY) as journal:

        def write(name):
            for number in range(20):
                journal.append("trial", {"trial_id": name, "number": number, "x": name * 500})

        threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trials = journal.contents.trials
    for name in "abc":
        assert [t["number"] for t in trials if t["trial_id"] == name] == list(range(20))


def test_superseding_takes_out_what_came_before_and_nothing_that_follows(folder):
    with Journal.open(folder, STUDY) as journal:
        journal.append("record", record("a").to_json())
        journal.append("record", record("b").to_json())
        journal.supersede(("a", 0, "full"), 0)
        assert set(journal.contents.accepted()) == {("b", 0, "full")}
        again = replace(record("a"), trial_id="later")
        journal.append("record", again.to_json())
        contents = journal.contents
    assert contents.accepted()["a", 0, "full"] == again
    assert contents.superseded == {0}
    assert contents.duplicates == 0
    assert [item.id for item in contents.standing()] == ["b", "a"]


# Torn and damaged


def test_a_torn_line_is_cut_away_said_and_followed_by_new_ones(folder):
    with Journal.open(folder, STUDY) as journal:
        journal.append("trial", {"trial_id": "t1"})
        identity = journal.contents.journal
    whole = written(folder)
    (folder / "journal.jsonl").write_bytes(whole + b'{"kind":"record","id":"a"')
    with Journal.open(folder, STUDY) as journal:
        assert journal.contents.torn_bytes == 25
        journal.append("trial", {"trial_id": "t2"})
        assert journal.contents.torn_bytes == 25
    again = read(folder / "journal.jsonl")
    assert written(folder).startswith(whole)
    assert [line["trial_id"] for line in again.trials] == ["t1", "t2"]
    assert again.journal == identity
    assert b'"kind":"torn","bytes":25' in written(folder)
    assert again.torn_bytes == 0


def test_a_driver_that_died_in_the_very_first_line_left_nothing(folder):
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_bytes(b'{"kind":"jour')
    with Journal.open(folder, STUDY) as journal:
        assert journal.contents.journal
        assert journal.contents.torn_bytes == 13


def test_a_damaged_journal_is_left_as_it_is(folder):
    with Journal.open(folder, STUDY):
        whole = written(folder)
    (folder / "journal.jsonl").write_bytes(whole + b"x\n")
    (folder / "study.yaml").unlink()
    with pytest.raises(JournalError, match="line 3 is damaged"):
        Journal.open(folder, STUDY)
    assert written(folder) == whole + b"x\n"
    assert not (folder / "study.yaml").exists()


# What cannot be written


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("window",
         {"id": "p", "launch": 0, "stage": "s", "reasons": [], "a": [1, {"b": float("nan")}]},
         r"a window cannot be journalled: a\[1\].b is nan, which is no number"),
        ("sitting", {"a": {"b": (float("-inf"),)}}, r"a\.b\[0\] is -inf"),
        ("sitting", {"a": Path("x")}, "a is a PosixPath, not plain data"),
        ("sitting", {"kind": "sitting"}, "cannot have a field named kind"),
        ("trial", {}, "a trial without trial_id"),
        ("news", {}, "unknown kind 'news'"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_and_the_journal_goes_on(kind, fields, said, folder):
    with Journal.open(folder, STUDY) as journal:
        before = written(folder)
        with pytest.raises(JournalError, match=said):
            journal.append(kind, fields)
        assert written(folder) == before
        journal.append("trial", {"trial_id": "t"})
        assert len(journal.contents.trials) == 1


@contextmanager
def disk_of(size):
    """Files of this process can have `size` bytes, as on a disk that is full then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_in_mid_line_leaves_no_half_line(folder):
    big = {"trial_id": "big", "x": "x" * 1000}
    with Journal.open(folder, STUDY) as journal:
        journal.append("trial", {"trial_id": "t1"})
        before = written(folder)
        with disk_of(len(before) + 100):
            with pytest.raises(PlaceError, match="free some space and type the same command"):
                journal.append("trial", big)
            with pytest.raises(PlaceError, match=r"cannot write .*attachments"):
                journal.attach("log", b"x" * (len(before) + 200))
        assert written(folder) == before
        assert list((folder / "attachments").iterdir()) == []
        journal.append("trial", {"trial_id": "t2"})
        assert [line["trial_id"] for line in journal.contents.trials] == ["t1", "t2"]


def test_nothing_follows_a_half_line_that_cannot_be_taken_back(folder, monkeypatch):
    def refused(descriptor, size):
        raise OSError(errno.EIO, "I/O error")

    with Journal.open(folder, STUDY) as journal:
        before = written(folder)
        with monkeypatch.context() as patched, disk_of(len(before) + 100):
            patched.setattr(os, "ftruncate", refused)
            with pytest.raises(PlaceError, match="free some space"):
                journal.append("trial", {"trial_id": "big", "x": "x" * 1000})
        torn = written(folder)
        assert len(torn) == len(before) + 100
        with pytest.raises(PlaceError, match="given up"):
            journal.append("trial", {"trial_id": "t"})
        assert written(folder) == torn
    with Journal.open(folder, STUDY) as journal:
        assert journal.contents.torn_bytes == 100


@pytest.mark.parametrize("size", [0, 50, 150, 300])
def test_a_disk_that_is_full_from_the_start_is_told_and_held_by_nobody(size, folder):
    text = "x: y\n" * 100
    opened = os.listdir("/proc/self/fd")  # noqa: PTH208
    with disk_of(size), pytest.raises(PlaceError, match="free some space"):
        Journal.open(folder, text)
    assert os.listdir("/proc/self/fd") == opened  # noqa: PTH208
    assert not (folder / "study.yaml").exists()
    with Journal.open(folder, text) as journal:
        assert [line["text"] for line in journal.contents.studies] == [text]
        assert journal.contents.torn_bytes == 0


# One driver

HOLDER = """
import sys, time
from pathlib import Path
from sweeper.results.journal import Journal
journal = Journal.open(Path(sys.argv[1]), "name: x")
number = len(journal.contents.trials)
print("open", flush=True)
while len(sys.argv) > 2:
    journal.append("trial", {"trial_id": str(number), "x": "x" * 3000})
    print(number, flush=True)
    number += 1
time.sleep(600)
"""


@contextmanager
def driver(folder, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_a_second_driver_is_refused_and_told_who_is_first(folder):
    with driver(folder) as first:
        before = written(folder)
        with pytest.raises(JournalError, match=rf"being written by process {first.pid} on \S+ "):
            Journal.open(folder, "name: other\n")
        assert written(folder) == before
        assert (folder / "study.yaml").read_text() == "name: x"
        assert read(folder / "journal.jsonl").journal
    with Journal.open(folder, "name: x"):
        pass


def test_the_lock_names_its_holder_and_nobody_before(folder):
    folder.mkdir(parents=True)
    (folder / "lock").write_text("x" * 500)
    with Journal.open(folder, STUDY):
        holder = (folder / "lock").read_text()
    assert re.fullmatch(rf"process {os.getpid()} on \S+ since 20[0-9T:.+-]+", holder)


def test_opening_and_closing_leaves_no_file_open(folder):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    for _ in range(3):
        Journal.open(folder, STUDY).close()
    with driver(folder) as first:
        opened = os.listdir("/proc/self/fd")  # noqa: PTH208
        with pytest.raises(JournalError, match=str(first.pid)):
            Journal.open(folder, STUDY)
        assert os.listdir("/proc/self/fd") == opened  # noqa: PTH208
    (folder / "journal.jsonl").write_bytes(b"x\n")
    with pytest.raises(JournalError):
        Journal.open(folder, STUDY)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_all_is_on_the_disk_before_the_driver_goes_on(folder, monkeypatch):
    synced, sync = [], os.fsync

    def noted(descriptor):
        sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        synced.append((path.suffix or path.name, path.is_file() and path.read_bytes()[-9:]))

    monkeypatch.setattr(os, "fsync", noted)
    with Journal.open(folder, STUDY) as journal:
        assert synced[0] == ("x", False)
        synced.clear()
        journal.append("trial", {"trial_id": "t"})
        assert synced == [(".jsonl", b'id":"t"}\n')]
        synced.clear()
        journal.attach("log", b"content")
    assert synced[:2] == [(".tmp", b"content"), ("attachments", False)]
    assert synced[2][0] == ".jsonl"


def test_the_lock_is_let_go_where_opening_fails_and_when_closing(folder):
    with Journal.open(folder, STUDY), pytest.raises(JournalError, match="being written"):
        Journal.open(folder, STUDY)
    whole = written(folder)
    (folder / "journal.jsonl").write_bytes(b"x\n" + whole)
    with pytest.raises(JournalError, match="line 1"):
        Journal.open(folder, STUDY)
    (folder / "journal.jsonl").write_bytes(whole)
    journal = Journal.open(folder, STUDY)
    journal.close()
    journal.close()
    with pytest.raises(PlaceError, match="closed"):
        journal.append("trial", {"trial_id": "t"})
    assert written(folder) == whole


def test_killed_at_any_moment_nothing_that_was_acknowledged_is_lost(folder):
    acknowledged = -1
    for lines in (1, 40, 7, 23):
        with driver(folder, "write") as process:
            for _ in range(lines):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split("\n")
            acknowledged = max([acknowledged, *(int(n) for n in rest[:-1] if n)])
        with Journal.open(folder, "name: x") as journal:
            numbers = [int(line["trial_id"]) for line in journal.contents.trials]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged
        assert written(folder).endswith(b"\n")


# Secrets


def test_credentials_reach_no_file(folder):
    address = "http://me:s3cr\u00fct@host:5000"
    with Journal.open(folder, f"tracking: {{uri: '{address}'}}\n") as journal:
        journal.append("sitting", {"argv": [f"tracking.uri={address}"]})
        assert journal.contents.sittings[0]["argv"] == ["tracking.uri=http://host:5000"]
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"s3cr" not in kept
    assert kept.count(b"host:5000") == 3
