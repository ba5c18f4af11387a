"""A study's numbers made again by separate code: honest studies pass, whatever befell them."""

import ast
import json
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.__main__ import main
from sweeper.answers.interval import mean_interval, t_quantile
from sweeper.answers.stated import stated_in
from sweeper.blocks import blocks
from sweeper.plan import expand, plan
from sweeper.results.journal import Journal
from sweeper.spec import (
    Axis,
    ExpectSpec,
    FinalistsSpec,
    MeasureSpec,
    ResourcesSpec,
    Settings,
    Study,
)
from sweeper.study import dump
from sweeper.verify import ids, student, verify
from tests.studies import MEASURE, simulated
from tests.verified import Kept, assert_verified, verified

ROOT = Path(__file__).parents[1]
JUDGES = {
    "sweeper.answers",
    "sweeper.results",
    "sweeper.search",
    "sweeper.study",
    "sweeper.plan",
    "sweeper.trial",
}
"""Where numbers are made the first time."""


def study(batching: str = "static", measure: MeasureSpec = MEASURE, **more) -> Study:
    made = simulated(batch_sizes=more.pop("batch_sizes", (1, 4)), measure=measure, **more)
    # Of a model so large that a window has hundreds of steps and not thousands.
    model = replace(made.settings.model, shape="llama-3.1-8b")
    workload = replace(made.settings.workload, batching=batching)
    return replace(made, settings=replace(made.settings, model=model, workload=workload))


def test_nothing_that_made_the_numbers_is_used_to_check_them():
    code = "import sys, sweeper.verify.report; print(*(m for m in sys.modules if 'sweeper' in m))"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(child.stdout.split())
    assert "sweeper.verify.figures" in loaded
    assert {name for name in loaded if not name.startswith("sweeper.verify")} == {
        "sweeper",
        "sweeper.errors",
    }
    for path in (ROOT / "sweeper" / "verify").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not any(str(node.module).startswith(each) for each in JUDGES), path


@pytest.mark.parametrize("batching", ["static", "continuous"])
def test_every_number_of_a_study_is_made_again(tmp_path, batching):
    measure = replace(MEASURE, repeats=3, launches=2)
    made = replace(study(batching, measure), limits={"latency_mean_s": 100.0})
    report = assert_verified(Kept(made, tmp_path).measure())
    compared = report.tally.compared
    assert report.counts["verdicts"] == 4
    # Each launch visits its control, the first of its two points, once more.
    assert report.counts["windows"] == compared["energies"] == 12 + 2
    assert compared["counts of requests and tokens"] == 8 * 14
    assert compared["samples"] > 1000
    assert compared["answers"] >= 6
    assert set(report.tally.left) == {"counts that only the engine knows"}
    [one, two] = report.budgets
    assert one.value is not None
    assert not one.measured
    for name in ("window", "launch", "drift"):
        assert isinstance(one.parts[name], float), name
    assert one.parts["counter"] == "no period of a counter is known"
    assert two.parts["board"] == "the meter's gain error is not known"


def test_what_is_not_known_of_an_uncertainty_is_never_zero(tmp_path):
    made = study(measure=replace(MEASURE, repeats=1))
    report = assert_verified(Kept(made, tmp_path).measure())
    for budget in report.budgets:
        unknown = {name for name, part in budget.parts.items() if isinstance(part, str)}
        # The launch visited its control twice, and that is all there is to tell.
        assert unknown == {"counter", "board", "window", "launch"}
        assert budget.parts["launch"] == "one launch"
        assert budget.parts["window"] == "one window"


def test_speculation_and_several_gpus_are_followed(tmp_path):
    speculative = {"kind": "stated", "acceptance": 0.7, "tokens": 4}
    made = study("continuous", tensor_parallel=2, batch_sizes=(4,))
    engine = replace(made.settings.engine, speculative=speculative)
    made = replace(made, settings=replace(made.settings, engine=engine))
    assert_verified(Kept(made, tmp_path).measure())


@pytest.mark.parametrize("count", [2, 6])
def test_blocks_and_what_they_save_are_made_again(tmp_path, count):
    axes = tuple(
        Axis(label=key, choices=tuple({key: value} for value in values))
        for key, values in (("engine.tensor_parallel", (1, 2)), ("engine.graphs", (True, False)))
    )
    measure = replace(MEASURE, finalists=FinalistsSpec(count=9, blocks=count))
    made = replace(study(measure=measure), axes=axes, baseline={"engine.tensor_parallel": 1})
    kept = Kept(made, tmp_path)
    kept.measure()
    first = assert_verified(kept.folder).tally.compared["savings"]
    kept.measure(blocks(made, expand(made)[0]))
    report = assert_verified(kept.folder)
    assert report.counts["verdicts"] == 4 * (1 + count)
    # Two savings of two objectives have intervals now.
    assert report.tally.compared["savings"] == 1 + 4 * 9 > first == 1 + 4 * 7
    assert {budget.stage for budget in report.budgets} == {"final"}
    assert all(isinstance(budget.parts["launch"], float) for budget in report.budgets)


def an_interval(said):
    result = said["results"][0]
    result["metrics"]["latency_mean_s_ci95_low"] *= 0.99


def a_front(said):
    said["front"] = said["front"][1:]


def a_best(said):
    said["best"] = next(each["id"] for each in said["results"] if each["id"] != said["best"])


def a_limit(said):
    said["limits"][0]["bound"] /= 2


def a_saving(said):
    said["savings"][0]["changes"]["latency_mean_s"]["ratio"] -= 0.001


def a_claim(said):
    said["savings"][0]["changes"]["energy_per_output_token_j"]["significant"] = True


def a_result(said):
    said["results"].pop()


ANSWERS = {
    an_interval: r"latency_mean_s_ci95_low is .*, recomputed",
    a_front: r"front is \[.*\], found \[",
    a_best: r"best is '\w+', found '\w+'",
    a_limit: r"limits is \[.*50\.0.*, found \[.*100\.0",
    a_saving: r"latency_mean_s: ratio is .*, recomputed",
    a_claim: r"significant is True, found None",
    a_result: r"results is \['\w+ \(full\)'\], found \['\w+ \(full\)', ",
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    made = study("static", replace(MEASURE, launches=2))
    made = replace(made, limits={"latency_mean_s": 100.0}, baseline={"workload.batch_size": 1})
    return Kept(made, tmp_path_factory.mktemp("answered")).measure()


@pytest.mark.parametrize("change", ANSWERS, ids=lambda change: change.__name__)
def test_an_answer_that_does_not_follow_is_found(answered, change):
    assert_verified(answered)
    said = stated_in(answered)
    change(said["answers"][0])
    found = [str(each) for each in verify(answered, lambda: said).tally.differences]
    assert any(re.search(ANSWERS[change], each) for each in found), found


@pytest.mark.parametrize("wrong", [{"verdict": "agrees"}, {"id": "another"}])
def test_a_claim_judged_otherwise_is_found(tmp_path, wrong):
    sizes = ({"workload.batch_size": 4}, {"workload.batch_size": 1})
    claims = [
        ExpectSpec(when=sizes[0], against=sizes[1], metric=metric, change=change, source="x")
        for metric in ("energy_per_output_token_j", "latency_mean_s")
        for change in ("-40%", "up to -40%", "<0", "-50..10%")
    ]
    made = replace(study("static", replace(MEASURE, launches=2)), expect=tuple(claims))
    folder = Kept(made, tmp_path).measure()
    assert_verified(folder)
    said = stated_in(folder)
    assert {each["verdict"] for each in said["claims"]} == {"simulation"}
    assert verify(folder, lambda: said).tally.compared["claims"] == 3 * len(claims)
    said["claims"][0].update(wrong)
    found = [str(each) for each in verify(folder, lambda: said).tally.differences]
    assert any(each.startswith("claim 0: ") for each in found), found


def test_prefill_parted_from_decoding_is_made_again(tmp_path):
    folder = Kept(study(measure=replace(MEASURE, phases=True)), tmp_path).measure()
    assert_verified(folder)
    wrong = {"energy_decode_per_output_token_j": 1.0}
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    metrics = next(line["metrics"] for line in lines if line["kind"] == "record")
    assert wrong.keys() <= metrics.keys()
    damage(folder, lambda line: line["kind"] == "record", metrics={**metrics, **wrong})
    said = [str(each) for each in verified(folder).tally.differences]
    assert any("energy_decode_per_output_token_j is 1, recomputed" in line for line in said)


def test_what_a_node_spends_beside_its_gpus_is_made_again(tmp_path):
    made = replace(study("continuous"), resources=ResourcesSpec(exclusive_node=True))
    folder = Kept(made, tmp_path).measure()
    assert_verified(folder)
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    metrics = next(line["metrics"] for line in lines if line["kind"] == "record")
    assert 0 < metrics["beside_energy_share"] < 1
    wrong = {"cpu_energy_j": metrics["cpu_energy_j"] + 1}
    damage(folder, lambda line: line["kind"] == "record", metrics={**metrics, **wrong})
    said = [str(each) for each in verified(folder).tally.differences]
    assert any("cpu_energy_j is" in line for line in said)


def test_windows_without_energy_pass_with_their_reasons(tmp_path):
    made = study(measure=replace(MEASURE, min_window_s=2.0))
    folder = Kept(made, tmp_path).measure()
    report = assert_verified(folder)
    assert "energy_invalid" in (folder / "journal.jsonl").read_text()
    assert all(budget.value is None for budget in report.budgets)


def test_a_torn_line_is_not_a_difference(tmp_path):
    folder = Kept(study(), tmp_path).measure()
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"kind": "record", "id": "abc')
    assert assert_verified(folder).counts["torn bytes"] == 29


def test_launches_that_died_and_were_retried_pass(tmp_path):
    fail = {"kind": "error", "at": "window", "batch_size": 4, "attempts": 1}
    kept = Kept(study(fail=fail), tmp_path)
    [trial] = plan(kept.study).trials
    kept.measure([trial])
    kept.give_up(trial, "EngineError: too often")
    kept.measure([replace(trial, attempt=1)])
    report = assert_verified(kept.folder)
    kinds = kinds_in(kept.folder)
    assert (kinds["death"], kinds["ended"]) == (1, 2)
    assert report.counts["verdicts"] == 2


def test_a_study_whose_driver_was_killed_passes_before_and_after_it_goes_on(tmp_path):
    kept = Kept(study(), tmp_path)
    [trial] = plan(kept.study).trials
    kept.measure([trial], until=lambda event: event["kind"] == "window")
    report = assert_verified(kept.folder)
    assert report.counts["verdicts"] == 0
    left = "windows of launches that died or run: their events are not kept"
    assert report.tally.left == Counter({left: 1})
    kept.measure([replace(trial, attempt=1)])
    assert assert_verified(kept.folder).tally.left[left] == 1


def test_records_that_were_taken_back_count_for_nothing_and_are_still_checked(tmp_path):
    kept = Kept(study(), tmp_path)
    [trial] = plan(kept.study).trials
    folder = kept.measure()
    with Journal.open(folder, dump(kept.study)) as journal:
        for record in journal.contents.records:
            journal.supersede(record.key, record.attempt)
    kept.measure([replace(trial, attempt=1)])
    report = assert_verified(folder)
    assert report.counts["records taken back"] == report.counts["verdicts"] == 2
    damage(folder, lambda line: line["kind"] == "record" and not line["attempt"], metrics={})
    assert not verified(folder).ok


def test_the_command_says_what_was_compared_and_has_a_status(tmp_path, capsys, monkeypatch):
    folder = Kept(study(measure=replace(MEASURE, launches=2)), tmp_path).measure()
    monkeypatch.chdir(tmp_path)
    assert main(["verify", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "differences     none" in said
    assert "board unknown: the meter's gain error is not known (all results)" in said
    assert max(map(len, said.splitlines())) <= 100
    assert main(["verify", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["budgets"][0]["parts"]["board"] is None
    assert found["budgets"][0]["unknown"]["board"]
    damage(folder, lambda line: line["kind"] == "record", gpus=2)
    assert main(["verify", str(folder)]) == 1
    assert "gpus is 2, found 1" in capsys.readouterr().out


def kinds_in(folder: Path) -> Counter[str]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return Counter(json.loads(line)["kind"] for line in lines)


def damage(folder: Path, which, **fields) -> None:
    path = folder / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{**line, **fields} if which(line) else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [
        (1, math.tan(0.475 * math.pi)),
        (2, 0.95 / math.sqrt(2 * 0.975 * 0.025)),
        (10, 2.228138852),
        (120, 1.979930405),
    ],
)
def test_students_t_is_that_of_closed_forms_and_tables(freedom, expected):
    assert student.quantile(0.975, freedom) == pytest.approx(expected, rel=5e-10)


@given(st.floats(0.6, 0.9999), st.integers(1, 400))
def test_both_codes_of_students_t_agree(p, freedom):
    assert student.quantile(p, freedom) == pytest.approx(t_quantile(p, freedom), rel=1e-9)


@given(st.lists(st.floats(0.1, 10.0), min_size=2, max_size=12))
def test_both_codes_of_intervals_agree(values):
    expected = pytest.approx(mean_interval(values), rel=1e-9, abs=1e-12)
    assert student.interval(values) == expected


AXES = (
    Axis(label="workload.batch_size", choices=tuple({"workload.batch_size": n} for n in (1, 8))),
    Axis(
        label="engine.speculative",
        choices=({"engine.speculative": None}, {"engine.speculative": {"kind": "ngram"}}),
    ),
    Axis(label="engine.options.seed", choices=tuple({"engine.options.seed": n} for n in (1, 2))),
    Axis(
        label="ways",
        choices=(
            {"engine.graphs": True, "engine.options.native": {"a": 1}},
            {"engine.graphs": False, "engine.options.native": {}},
        ),
    ),
)


def test_ids_follow_from_a_studys_text():
    import yaml

    made = Study(
        name="ids",
        settings=Settings(),
        axes=AXES,
        conditions=(
            Axis(label="workload.task", choices=({"workload.task": "x"},)),
            Axis(label="measure.min_window_s", choices=({"measure.min_window_s": 7.5},)),
        ),
        exclude=({"workload.batch_size": ">4", "engine.graphs": False},),
    )
    points, excluded = expand(made)
    assert (len(points), excluded) == (12, 4)
    assert ids.asked_for(yaml.safe_load(dump(made))) == {point.id for point in points}
