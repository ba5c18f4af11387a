"""Rehearsals: the same study on its stage, and whole ones judged by an oracle."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from sweeper.errors import StudyError
from sweeper.forecast import forecast, parse_pool
from sweeper.plan import expand
from sweeper.rehearsal import rehearsed
from sweeper.spec import Axis, Study
from sweeper.study import dump, load
from tests.commands import Command, until
from tests.oracle import answer, faults, journal_of, lasting_faults

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.glob("*.yaml"))
H100 = parse_pool("1x8:H100")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_on_its_stage_has_as_many_points_and_is_a_study(file: Path, tmp_path: Path) -> None:
    study = load(file)
    staged = rehearsed(study, H100)
    assert staged.name == f"{study.name}.rehearsal"
    assert len(expand(staged)[0]) == len(expand(study)[0])
    assert expand(staged)[1] == expand(study)[1]
    assert {point.id for point in expand(staged)[0]}.isdisjoint(p.id for p in expand(study)[0])
    assert all(point.settings.engine.kind == "simulated" for point in expand(staged)[0])
    assert staged.settings.meter == "simulated"
    assert (staged.objectives, staged.limits) == (study.objectives, study.limits)
    folder = tmp_path / staged.name
    folder.mkdir()
    (folder / "study.yaml").write_text(dump(staged))
    assert load(folder) == staged


def staged(text: str, tmp_path: Path, pool: str = "1x8:H100") -> Study:
    (tmp_path / "s.yaml").write_text(
        f"name: s\nmodel: {{shape: llama-3.1-8b, weights: dummy}}\n{text}"
    )
    return rehearsed(load(tmp_path / "s.yaml"), parse_pool(pool))


def test_engines_and_their_options_stay_apart(tmp_path: Path) -> None:
    text = """
workload: {batching: static}
engine: {options: {seed: 1}}
axes: {engine.kind: [vllm, transformers]}
exclude: [{engine.kind: transformers, workload.batch_size: '>8'}]
baseline: {engine.kind: transformers}
"""
    study = staged(text, tmp_path)
    assert study.axes == (
        Axis(
            label="engine.simulates",
            choices=({"engine.simulates": "vllm"}, {"engine.simulates": "transformers"}),
        ),
    )
    assert study.exclude == ({"engine.simulates": "transformers", "workload.batch_size": ">8"},)
    assert study.baseline == {"engine.simulates": "transformers"}
    assert study.settings.engine.options == {"native": {"seed": 1}}


def test_what_is_simulated_already_is_rehearsed_as_it_is(tmp_path: Path) -> None:
    text = "engine: {kind: simulated, options: {noise: 0.02}}\n"
    study = staged(text, tmp_path)
    assert study.settings.engine.options == {"noise": 0.02}
    assert study.settings.engine.simulates is None


@pytest.mark.parametrize(
    ("text", "pool", "said"),
    [
        (
            "engine: {kind: endpoint, options: {url: 'http://a:1'}}",
            "1x8:H100",
            "engine.kind: an endpoint cannot be rehearsed",
        ),
        ("", "1x8:H100,1x4:A6000", "mixes A6000 and H100"),
        ("resources: {accelerator: B200}", "1x8:H100", "the pool has no B200"),
    ],
)
def test_what_cannot_be_rehearsed_is_said(text: str, pool: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=said):
        staged(text, tmp_path, pool)


def test_a_model_of_unknown_shape_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: s\nmodel: {id: some/model}\n")
    with pytest.raises(StudyError, match="the shape of some/model is not known"):
        rehearsed(load(tmp_path / "s.yaml"), H100)


def nodes_of(pool: str) -> dict[str, str]:
    """The node of each device of a pretend cluster, from how they are named."""
    return {
        f"{node.gpu.name}/node-{number}-gpu-{index}": f"node-{number}"
        for number, node in enumerate(parse_pool(pool))
        for index in range(node.gpus)
    }


@pytest.mark.ray
@pytest.mark.simulation
def test_the_tensor_parallel_study_is_rehearsed_soundly_and_as_the_dry_run_says(
    tmp_path: Path,
) -> None:
    study = tmp_path / "tp_study.yaml"
    shutil.copy(CONF / "tp_study.yaml", study)
    command = Command(study, "--rehearse", "1x8:H100", "--json")
    assert command.wait(280) == 0, command.err
    said = json.loads(command.out)
    assert (said["study"], said["points"], said["ok"]) == ("tp_study.rehearsal", 29, 29)
    journal = journal_of(study.parent / "mlruns" / "studies" / "tp_study.rehearsal")
    assert faults(journal, nodes_of("1x8:H100")) == []
    assert sum(line["kind"] == "record" for line in journal) == 29

    given = load(study)
    front, best = answer(journal, {}, given.objectives, given.limits)
    [found] = said["answers"]
    assert {entry["id"] for entry in found["front"]} == front
    assert found["best"]["id"] == best
    assert found["best"]["energy"]["measured"] is False

    expected = forecast(given, H100)
    assert expected.unfit == expected.wide == {}
    leases = sum(line["kind"] == "trial" for line in journal)
    assert leases == len(expected.plan.trials)
    came_to = said["rehearsal"]
    assert came_to["makespan_s"] == pytest.approx(expected.makespan_s, rel=0.2)
    assert came_to["gpu_seconds"] == pytest.approx(expected.gpu_seconds, rel=0.2)
    assert came_to["energy_j"] == pytest.approx(expected.energy_j, rel=0.2)
    assert came_to["gpu_seconds"] == said["gpu_seconds"]
    assert until(lambda: command.left() == [], 30), "nothing is left of the pretend cluster"


@pytest.mark.ray
@pytest.mark.simulation
@pytest.mark.slow
def test_a_search_is_rehearsed_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    study = tmp_path / "energy_search.yaml"
    shutil.copy(CONF / "energy_search.yaml", study)
    pool = "2x4:H200,1x8:A6000"
    words = (
        *("--rehearse", pool, "resources.accelerator=H200"),
        *("search.budget={launches: 12}", "measure.finalists={count: 2, blocks: 3}"),
    )
    command = Command(study, *words)
    path = study.parent / "mlruns" / "studies" / "energy_search.rehearsal"
    command.journal_path = path / "journal.jsonl"
    assert command.reaches(lambda journal: len(journal.records) >= 3)
    command.kill()
    assert until(lambda: command.left() == [], 30)

    command = Command(study, *words, "--json")
    assert command.wait(280) == 0, command.err
    journal = journal_of(path)
    # The leases of the driver that was killed have no end.
    cut = max(place for place, line in enumerate(journal) if line["kind"] == "sitting")
    assert faults(journal[cut:], nodes_of(pool)) == []
    assert lasting_faults(journal) == []
    records = [line for line in journal if line["kind"] == "record" and line["stage"] == "full"]
    assert len({line["id"] for line in records}) == len(records)
    leases = Counter(line["stage"] for line in journal if line["kind"] == "trial")
    assert leases == {"full": 12, "final": 3}, "blocks are no part of a search's budget"
    given = load(study)
    front, best = answer(journal, {}, given.objectives, given.limits)
    [found] = json.loads(command.out)["answers"]
    assert {entry["id"] for entry in found["front"]} == front
    assert (found["best"] or {"id": None})["id"] == best
    assert found["best"] is None or found["best"]["launches"] == 3
