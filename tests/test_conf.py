"""Every file in `conf/` is a study that loads and plans."""

from pathlib import Path

import pytest

from sweeper.plan import plan
from sweeper.study import dump, load, unavailable

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.glob("*.yaml"))


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
