"""Every file in `conf/` is a study that loads, plans, and is rehearsed."""

from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.answers.best import answers
from sweeper.answers.claims import judged
from sweeper.answers.savings import savings
from sweeper.answers.table import table
from sweeper.blocks import whole
from sweeper.feasibility import impossible
from sweeper.forecast import cost_on, parse_pool
from sweeper.gpu_data import gpu
from sweeper.plan import Plan, min_requests, plan
from sweeper.rehearsal import rehearsed
from sweeper.results.components import COMPONENTS
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from sweeper.shapes import shape_of_model
from sweeper.spec import FinalistsSpec, Settings, Study, Trial
from sweeper.speculation import draft_shape
from sweeper.study import dump, load, unavailable
from tests.contract_search import World
from tests.verified import Kept, assert_verified

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.glob("*.yaml"))
CAMPAIGN = sorted((CONF / "h200").glob("*.yaml"))


def test_there_are_studies_to_begin_with():
    assert {"quickstart", "tp_study"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_loads_plans_and_says_what_it_asks(file, tmp_path):
    study = load(file)
    assert study.name == file.stem
    assert plan(study).trials
    assert file.read_text().startswith("# ")
    assert "?" in file.read_text().partition("\nname:")[0]
    (tmp_path / "study.yaml").write_text(dump(study))
    assert load(tmp_path) == study


def test_the_quickstart_can_run_now_and_is_short():
    study = load(CONF / "quickstart.yaml")
    assert unavailable(study) == []
    settings = study.settings
    assert settings.convention == "whole"
    assert (settings.model.id, settings.model.weights) == (None, "dummy")
    points = plan(study).points
    both = [(point.settings.engine.kind, point.settings.workload.batch_size) for point in points]
    assert both == [(kind, size) for kind in ("transformers", "vllm") for size in (1, 16)]
    measured_s = len(points) * settings.measure.repeats * settings.measure.min_window_s
    assert measured_s <= 60


def test_the_tensor_parallel_study_is_that_of_the_paper():
    study = load(CONF / "tp_study.yaml")
    assert study.settings.model.id == "meta-llama/Llama-3.1-8B-Instruct"
    assert study.settings.model.shape == "llama-3.1-8b"
    assert study.settings.engine.kind == "vllm"
    assert study.limits == {"tpot_p99_s": 0.05}
    whole = plan(study)
    assert (len(whole.points), whole.excluded) == (29, 1)
    assert [trial.gpus for trial in whole.trials] == [4, 2, 1]
    widest = {1: 256, 2: 512, 4: 512}
    assert {t.gpus: t.launches[0].sizes.max_batch_size for t in whole.trials} == widest


def test_the_framework_tax_is_of_the_same_work_on_either_engine():
    study = load(CONF / "framework_tax.yaml")
    assert unavailable(study) == []
    settings = study.settings
    assert (settings.convention, settings.workload.batching) == ("whole", "static")
    whole = plan(study)
    ways = [(s.kind, s.compile, s.graphs) for s in (each.engine for each in settings_of(whole))]
    assert (len(whole.points), len(whole.trials), whole.excluded) == (36, 4, 0)
    assert list(dict.fromkeys(ways)) == [
        ("transformers", False, False),
        ("transformers", True, False),
        ("vllm", False, False),
        ("vllm", True, True),
    ]
    for each in settings_of(whole):
        # No pass of vLLM's is smaller than the one that transformers makes of a batch's prompts.
        prompts = each.workload.batch_size * each.workload.input_tokens
        assert prompts <= (each.engine.max_batched_tokens or prompts)
        assert each.workload.requests % each.workload.batch_size == 0


def test_the_speculative_threshold_is_looked_for_to_either_side():
    study = load(CONF / "speculative_threshold.yaml")
    assert unavailable(study) == []
    assert study.quality == "unchecked_ok"
    whole = plan(study)
    assert (len(whole.points), len(whole.trials)) == (24, 3)
    drafts = {shape.name for each in settings_of(whole) if (shape := draft_shape(each))}
    assert drafts == {"llama-3.2-1b"}
    assert {each.workload.batch_size for each in settings_of(whole)} == {2**n for n in range(8)}


def test_the_energy_search_has_more_to_try_than_it_may():
    study = load(CONF / "energy_search.yaml")
    assert unavailable(study) == []
    assert (study.search.kind, study.search.budget.launches) == ("optuna", 40)
    assert study.settings.measure.finalists == FinalistsSpec(count=3, blocks=6)
    assert study.limits == {"tpot_p99_s": 0.05}
    whole = plan(study)
    assert (len(whole.points), len(whole.trials)) == (336, 48)
    for launch in whole.launches:
        settings = launch.points[0].settings
        assert impossible(settings, shape_of_model(settings.model), launch.sizes) is None


def test_the_components_are_asked_of_whole_nodes_for_each_workload():
    study = load(CONF / "components.yaml")
    assert unavailable(study) == []
    assert study.resources.exclusive_node
    whole = plan(study)
    assert (len(whole.points), len(whole.trials)) == (18, 2)
    assert len({tuple(point.condition.values()) for point in whole.points}) == 3


def test_claims_of_a_gpu_are_of_the_framework_tax():
    whole = plan(load(CONF / "framework_tax.yaml"))
    for name, accelerator in (
        ("framework_a100", "A100"),
        ("framework_a6000", "RTX-A6000"),
        ("framework_rtx6000ada", None),
    ):
        study = load(CONF / f"{name}.yaml")
        assert unavailable(study) == []
        assert study.resources.accelerator == accelerator
        assert settings_of(plan(study)) == settings_of(whole)


def test_a_mixture_of_experts_stands_between_two_dense_models():
    study = load(CONF / "moe_against_dense.yaml")
    assert unavailable(study) == []
    shapes = [shape_of_model(each.model) for each in settings_of(plan(study))]
    sizes = {shape.name: (shape.active_parameters, shape.parameters) for shape in shapes if shape}
    small, large, mixture = (sizes[f"olmo{name}"] for name in ("-1b", "-7b", "e-1b-7b"))
    assert small[1] == pytest.approx(mixture[0], rel=0.15)
    assert large[1] == pytest.approx(mixture[1], rel=0.15)


def test_lengths_are_swept_where_every_batch_fits():
    study = load(CONF / "length_sweep.yaml")
    assert unavailable(study) == []
    assert study.settings.measure.phases
    whole = plan(study)
    assert len(whole.points) == 24
    for launch in whole.launches:
        settings = launch.points[0].settings
        assert impossible(settings, shape_of_model(settings.model), launch.sizes) is None


def test_decoding_and_serving_are_compared_on_the_same_work():
    for name, points in (("decoding", 32), ("online", 18)):
        study = load(CONF / f"{name}.yaml")
        assert unavailable(study) == []
        assert study.settings.convention == "whole"
        assert len(plan(study).points) == points


def settings_of(whole: Plan) -> list[Settings]:
    return [point.settings for point in whole.points]


_ENDS = ("workload.batch_size=[1, 64]",)
FEWER = {
    "framework_a100": ("workload.batch_size=[1, 256]",),
    "framework_a6000": ("workload.batch_size=[1, 256]",),
    "framework_rtx6000ada": ("workload.batch_size=[1, 256]",),
    "moe_against_dense": ("workload.batch_size=[2, 32]",),
    "length_sweep": _ENDS,
    "decoding": _ENDS,
    "online": (*_ENDS, "workload.requests=64"),
}
"""What is left out of a rehearsal that would repeat another's, or take long."""


class Rehearsed(World):
    """Runs each trial as a lease does, in virtual time, and keeps what it tells."""

    def __init__(self, study: Study, root: Path, card: str = "H100") -> None:
        super().__init__(study, devices=8, cost=cost_on(gpu(card), min_requests(study)))
        self.kept = Kept(study, root)

    def run(self) -> "Rehearsed":
        with self.kept.keeper() as self._keeper:
            super().run()
        return self

    def held(self, trial: Trial) -> list[Record]:
        told = self.kept.lease(trial, self._keeper)
        return [Record.from_json(event) for event in told if event["kind"] == "record"]


@pytest.mark.simulation
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_is_rehearsed_and_answers_what_it_asks(file, tmp_path):
    # One window a point: there are as many points, each as good for an answer.
    study = load(file, ["measure.repeats=1", *FEWER.get(file.stem, ())])
    card = study.resources.accelerator or "H100"
    study = rehearsed(study, parse_pool(f"1x8:{card}"))
    world = Rehearsed(study, tmp_path, card).run()
    assert world.search.finished
    assert {(record.status, record.reason) for record in world.records} == {("ok", None)}
    assert len({record.key for record in world.records}) == len(world.records)
    ids = {record.id for record in world.records}
    points = {point.id for point in plan(study).points}
    assert ids == points if study.search.kind == "grid" else ids < points
    blocks = [trial for trial in world.asked if trial.block]
    assert len(blocks) == study.settings.measure.finalists.blocks
    accepted = Contents(records=tuple(world.records)).accepted()
    assert all(whole(block, accepted) for block in blocks)
    wanted = {*study.objectives, *study.limits}
    for record in world.records:
        assert wanted <= record.metrics.keys()
        assert not wanted & set(record.undersampled)
        assert all(record.metrics[name] > 0 for name in wanted)
    for answer in answers(world.records, study):
        assert answer.best is not None
        assert (answer.best.stage == "final") == bool(blocks)
        assert answer.group.provenance == "simulation"
        saved = savings(answer.group, study, world.records, list(study.objectives))
        assert bool(saved) == bool(study.baseline)
    claims = judged(study, world.records)
    assert all(any(each.claim is claim for each in claims) for claim in study.expect)
    assert all(each.verdict == "simulation" and each.change for each in claims)
    assert_verified(world.kept.folder)


@pytest.mark.simulation
def test_a_rehearsal_shows_what_is_beside_the_gpus_for_each_workload(tmp_path):
    text = load(CONF / "components.yaml", ["measure.repeats=1", "workload.batch_size=16"])
    study = rehearsed(text, parse_pool("1x8:H100"))
    records = Rehearsed(study, tmp_path).run().records
    assert len(records) == 6
    for record in records:
        metrics = record.metrics
        parts_j = [metrics[f"{name}_energy_j"] for name in COMPONENTS]
        share = sum(parts_j) / (sum(parts_j) + metrics["energy_j"])
        assert metrics["beside_energy_share"] == pytest.approx(share)
        idle = record.environment["components"]["idle_gpu"]["counted"]
        assert len(idle) == 8 - record.gpus
    shares = {
        (record.gpus, record.condition["workload.output_tokens"]): record.metrics[
            "beside_energy_share"
        ]
        for record in records
    }
    # One GPU at work leaves seven idle on its node, four leave four.
    assert all(shares[1, tokens] > shares[4, tokens] for tokens in (128, 256, 2048))
    found = answers(records, study)
    shown = table(study, records, found)
    assert shown.count("beside the launch's GPUs, and not in the joules above:") == 3
    assert shown.count("share beside") == 3
    assert shown.count("(simulation)") == 3 * (3 + 4)


@pytest.mark.simulation
def test_a_rehearsal_tells_frameworks_apart(tmp_path):
    study = rehearsed(load(CONF / "framework_tax.yaml"), parse_pool("1x8:H100"))
    study = replace(study, exclude=({"workload.batch_size": ">1"},))
    records = Rehearsed(study, tmp_path).run().records
    joules = {
        (record.chosen["engine.simulates"], record.chosen["engine.compile"]): record.metrics[
            "energy_per_output_token_j"
        ]
        for record in records
    }
    assert joules["transformers", False] > joules["transformers", True] > joules["vllm", True]


@pytest.mark.parametrize("path", CAMPAIGN, ids=[path.stem for path in CAMPAIGN])
def test_a_study_of_the_campaign_is_planned_for_one_gpu(path):
    study = load(path)
    assert study.name == f"h200_{path.stem}"
    assert not unavailable(study)
    todo = plan(study, cost=cost_on(gpu("H200"), min_requests(study)))
    assert {trial.gpus for trial in todo.trials} == {1}
    assert all(point.settings.model.weights != "auto" for point in todo.points)


@pytest.mark.slow
@pytest.mark.parametrize("path", CAMPAIGN, ids=[path.stem for path in CAMPAIGN])
def test_a_study_of_the_campaign_is_rehearsed(path, tmp_path):
    study = rehearsed(load(path), parse_pool("1x1:H200"))
    world = Rehearsed(study, tmp_path).run()
    assert {record.status for record in world.records} == {"ok"}
    assert_verified(world.kept.folder)
