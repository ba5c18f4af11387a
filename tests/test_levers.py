"""docs/levers.md: of what it is made, and that it is what its command makes."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts.levers import KEPT, PAGE, engines, judge, main, page, refusal, run
from scripts.levers_table import LEVERS, RESOLVED, Above, Lever, Proof
from tests.records import make_record

CASES = [(lever, engine) for lever in LEVERS for engine in engines()]
PROOF = Proof(f"{RESOLVED}.graphs", True)


def key(lever, engine):
    return f"{engine}: {lever.name}"


def record(resolved, **fields):
    made = make_record(environment={"resolved_engine": resolved}, **fields)
    return json.loads(json.dumps(made.to_json()))


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (record({"graphs": True}), "run"),
        (record({"graphs": True}, status="energy_invalid"), "run"),
        (record({"graphs": False}), "wrong"),
        (record({"graphs": 1}), "wrong"),
        (record({}), "unproven"),
        (record({"graphs": False, "notes": {"graphs": "off: CUDA graphs need a GPU"}}), "gpu"),
        (record({"graphs": False, "notes": {"other": "needs a GPU"}}), "wrong"),
        (record({"graphs": True}, status="failed", reason="hung"), "wrong"),
        (record({}, status="infeasible", reason="flash needs a GPU"), "gpu"),
        (record({}, status="infeasible", reason="beam is not there"), "refused"),
        (record({}, status="wrong_setting", reason="it took another"), "refused"),
    ],
)
def test_a_lever_took_effect_only_where_its_record_shows_it(told, found):
    assert judge(told, PROOF).found == found


@pytest.mark.parametrize(
    ("expected", "seen", "holds"),
    [
        (Above(0), 3, True),
        (Above(0), 0.0, False),
        (Above(0), True, False),
        (Above(0), None, False),
        ("fp8", "fp8", True),
        ("fp8", "auto", False),
        (False, 0, False),
        (2, 2, True),
    ],
)
def test_a_proof_is_of_one_kind_and_value(expected, seen, holds):
    assert Proof("x", expected).holds(seen) is holds


def test_a_lever_that_is_neither_refused_nor_proven_is_wrong():
    unproven = Lever(name="x", asks={"engine.dtype": "float32"}, proofs={})
    assert run(unproven, "transformers").found == "wrong"


def test_a_refusal_is_in_the_words_of_the_check():
    tokens = Lever(name="x", asks={"engine.max_batched_tokens": 9}, proofs={})
    assert "engine.max_batched_tokens: 9" in (refusal(tokens, "transformers") or "")
    assert run(tokens, "transformers").found == "refused"


@pytest.fixture(scope="module")
def kept():
    return json.loads(KEPT.read_text())["outcomes"]


def test_the_page_is_made_of_what_was_seen():
    assert PAGE.read_text() == page(json.loads(KEPT.read_text()))


@pytest.mark.parametrize(("lever", "engine"), CASES, ids=[key(*case) for case in CASES])
def test_every_lever_was_tried_on_every_engine(lever, engine, kept):
    """What a study's check refuses is refused in the words that were kept, and nothing else is."""
    outcome = kept[key(lever, engine)]
    assert outcome["found"] != "wrong"
    now = refusal(lever, engine)
    if now is not None:
        assert (outcome["found"], outcome["why"]) == ("refused", now)
    elif outcome["found"] == "run":
        assert lever.proofs[engine].path == outcome["path"]
        assert lever.proofs[engine].holds(outcome["seen"])


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(("lever", "engine"), CASES, ids=[key(*case) for case in CASES])
def test_a_lever_runs_here_as_was_kept(lever, engine, kept):
    now = asdict(run(lever, engine))
    assert now["found"] == kept[key(lever, engine)]["found"], now


def test_a_page_of_levers_that_were_never_run_is_not_made(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("scripts.levers.KEPT", tmp_path / "levers.json")
    monkeypatch.setattr("scripts.levers.PAGE", tmp_path / "levers.md")
    assert main([]) == 1
    assert not (tmp_path / "levers.md").exists()
