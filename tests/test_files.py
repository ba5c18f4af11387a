import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeper.errors import PlaceError
from sweeper.results.files import write_whole
from sweeper.results.journal import Journal

STUDY = "name: x\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mlruns" / "studies" / "x"


def written(folder):
    return (folder / "journal.jsonl").read_bytes()


def test_a_file_is_the_old_or_the_new_one_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for data in (b"old", b"new and longer", b""):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(PlaceError, match=r"cannot write .*folder"):
        write_whole(tmp_path / "folder", b"x")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "folder"]


@contextmanager
def nobody():
    """Rights as anyone has them: for the superuser nothing is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_named_and_nothing_is_left_in_it():
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o555)
        said = r"cannot write .*studies.*make the folder writable"
        with nobody(), pytest.raises(PlaceError, match=said):
            Journal.open(root / "studies" / "x", STUDY)
        assert list(root.iterdir()) == []
        root.chmod(0o755)


def test_a_journal_that_is_read_only_is_left_alone():
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        with Journal.open(root / "x", STUDY):
            before = written(root / "x")
        for path in (root / "x", root / "x" / "lock", root / "x" / "journal.jsonl", root):
            path.chmod(0o555)
        with nobody(), pytest.raises(PlaceError, match="make the folder writable"):
            Journal.open(root / "x", "name: other\n")
        assert written(root / "x") == before
        for path in (root / "x", root):
            path.chmod(0o755)


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "mlruns").write_text("")
    with pytest.raises(PlaceError, match=r"move away what stands at .*mlruns"):
        Journal.open(tmp_path / "mlruns" / "studies" / "x", STUDY)


def test_a_folder_where_the_journal_should_be_is_named(folder):
    (folder / "journal.jsonl").mkdir(parents=True)
    with pytest.raises(PlaceError, match=r"move away what stands at .*journal.jsonl"):
        Journal.open(folder, STUDY)
    (folder / "journal.jsonl").rmdir()
    Journal.open(folder, STUDY).close()
