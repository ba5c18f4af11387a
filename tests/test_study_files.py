"""What is no study file, and what one cannot extend."""

import os

import pytest

from sweeper.errors import StudyError
from sweeper.study import load

BASE = "model: {shape: tiny, weights: dummy}\nengine: {kind: simulated}\n"


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """What is said of a text that stands in `s.yaml` over two lines of a sound study."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)

    def of(text: str | bytes, *words: str) -> tuple[str, ...]:
        raw = text if isinstance(text, bytes) else f"extends: base.yaml\n{text}".encode()
        (tmp_path / "s.yaml").write_bytes(raw)
        with pytest.raises(StudyError) as caught:
            load("s.yaml", words)
        assert "<object" not in str(caught.value)
        return caught.value.faults

    return of


UNREADABLE = [
    (b"", "s.yaml: empty"),
    (b"# nothing\n", "s.yaml: empty"),
    (b"just words", "s.yaml: not a mapping of keys"),
    (b"- a\n- b", "s.yaml: not a mapping of keys"),
    (b"42", "s.yaml: not a mapping of keys"),
    (b"a: [1,", "s.yaml:2: not YAML"),
    (b"a: 1\n  b: 2", "s.yaml:2: not YAML: mapping values are not allowed"),
    (b"meter: auto\nmeter: nvml", "s.yaml:2: not YAML: found duplicate key meter"),
    (b"engine: {dtype: a, dtype: b}", "s.yaml:1: not YAML: found duplicate key dtype"),
    (b"a: !!python/object/apply:os.system [ls]", "s.yaml:1: not YAML: could not determine"),
    (b"a: &x [*x]", "s.yaml:1: not YAML"),
    (b"--- \na: 1\n---\nb: 1", "s.yaml:3: not YAML"),
    (b"\x80\x81", "s.yaml: not a text in UTF-8"),
    (b"a: \x00", "s.yaml: cannot be used"),
    (b"a: '${'", "s.yaml: cannot be used"),
    (b"a: " + b"[" * 200_000, "s.yaml: cannot be used: nested deeper"),
    (b"a: " + b"9" * 5000, "s.yaml: cannot be used"),
    (b"x" * (2**20 + 1), "s.yaml: larger than"),
]


@pytest.mark.parametrize(("raw", "said"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_study_file_is_said_in_one_sentence(faults, raw, said):
    found = faults(raw)
    assert len(found) == 1
    assert found[0].startswith(said)
    assert "\n" not in found[0]


def test_aliases_that_blow_up_are_refused(faults):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "not YAML" in faults("\n".join(lines).encode())[0]


def test_a_file_that_is_not_there_names_those_that_are(tmp_path):
    (tmp_path / "real.yaml").write_text(BASE)
    with pytest.raises(StudyError, match=r"no such study file; there are .*real\.yaml"):
        load(tmp_path / "reel.yaml")


def test_a_folder_without_a_study_is_said(tmp_path):
    with pytest.raises(StudyError, match=r"a folder without study\.yaml"):
        load(tmp_path)


def test_a_pipe_is_no_study_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StudyError, match="not a file"):
        load(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_an_impossible_path_is_said(name):
    with pytest.raises(StudyError, match="cannot be read"):
        load(name)


EXTENDS = [
    ("extends: nowhere.yaml", "s.yaml:1: extends: nowhere.yaml is not there; it is relative to"),
    ("\nextends: s.yaml", "s.yaml:2: extends: s.yaml extends this file in turn"),
    ("extends: [base.yaml]", "s.yaml:1: extends: wanted: the path of one study file"),
    ("extends: '${name}'", "s.yaml:1: extends: wanted: the path of one study file"),
    ("extends: bad.yaml", "bad.yaml:2: not YAML"),
]


@pytest.mark.parametrize(("text", "said"), EXTENDS)
def test_what_cannot_be_extended_is_said(faults, tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text("meter: auto\nmeter: auto")
    found = faults(text.encode())
    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_ring_of_files_is_refused(faults, tmp_path):
    (tmp_path / "a.yaml").write_text("extends: ./s.yaml")
    assert faults(b"extends: a.yaml") == ("a.yaml:1: extends: ./s.yaml extends this file in turn",)


def test_a_fault_in_an_extended_file_is_placed_there(faults, tmp_path):
    (tmp_path / "middle.yaml").write_text("extends: base.yaml\n\nengine: {dtype: x, mode: y}\n")
    found = faults(b"extends: middle.yaml\nengine: {mode: offline}")
    assert len(found) == 1
    assert found[0].startswith('middle.yaml:3: engine.dtype: "x" given')


def test_a_resolver_is_refused_also_where_another_file_decides(faults, tmp_path):
    (tmp_path / "middle.yaml").write_text("extends: base.yaml\nname: '${oc.env:USER}'\n")
    found = faults(b"extends: middle.yaml\nname: mine")
    assert len(found) == 1
    assert found[0].startswith("middle.yaml:2: name: ${oc.env:USER}: a study file is data")
