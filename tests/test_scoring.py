"""A study's scorer: what it is given, what it may print, and what its score decides."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeper.answers.best import answers
from sweeper.clocks import RealClock
from sweeper.engines import Served, engine_class, engine_traits
from sweeper.engines.endpoint_server import free_port
from sweeper.errors import EngineError
from sweeper.plan import expand, plan
from sweeper.rehearsal import rehearsed
from sweeper.results.contents import FILE, read
from sweeper.spec import (
    Axis,
    EngineSpec,
    MeasureSpec,
    ModelSpec,
    QualitySpec,
    Settings,
    Sizes,
    Study,
)
from sweeper.study import load, unavailable
from sweeper.trial.scoring import parse, score
from tests.records import make_record, two_objectives
from tests.studies import simulated
from tests.verified import Kept, assert_verified

SIZE, QUANTIZED = "workload.batch_size", "engine.quantization"
MEASURE = MeasureSpec(min_window_s=5.0, repeats=2)


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("0.71", 0.71),
        ("loading\n 3e-1 \n\n", 0.3),
        ("5", 5.0),
        ('{"score": 0.5, "n": 3}', 0.5),
        ('{"n": 3}\n{"score": 1}', 1.0),
    ],
)
def test_a_score_is_on_the_last_line(output, value):
    assert parse(output) == value


@pytest.mark.parametrize(
    "output", ["", "good", "true", "NaN", '{"score": "0.5"}', '{"n": 1}', "[0.5]", "0.5\ndone"]
)
def test_what_is_no_score_is_none(output):
    with pytest.raises(EngineError, match="scorer_output"):
        parse(output)


class Fake:
    """An engine of which only its server is asked."""

    def __init__(self, server: Callable[[int], Served | None] = lambda port: None) -> None:
        self._server = server

    def launch_command(self) -> str:
        return "serve it"

    def served(self, port: int) -> Served | None:
        return self._server(port)


def scored(command: str, engine: Any = None, **more: Any) -> Any:
    spec = QualitySpec(command=command, min=0.5, **more)
    return score(spec, Settings(), engine or Fake(), lambda: None)


@pytest.mark.process
class TestAsProcesses:
    def test_it_finds_the_configuration_in_its_environment(self):
        checks = (
            "import json, os;"
            "told = json.loads(os.environ['SWEEPER_CONFIG']);"
            "assert told['workload.batch_size'] == 32;"
            "assert os.environ['SWEEPER_ENDPOINT'] == '';"
            "assert os.environ['SWEEPER_LAUNCH_COMMAND'] == 'serve it';"
            "print('some words'); print(0.25)"
        )
        found = scored(f'{sys.executable} -c "{checks}"')
        assert (found.value, found.reason) == (0.25, None)

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            ("exit 3", "scorer_failed: it ended with status 3"),
            ("false\necho 1", "scorer_failed"),
            ("echo good", "scorer_output"),
            ("sleep 60", "scorer_timeout"),
        ],
    )
    def test_what_goes_wrong_is_a_reason_and_no_number(self, command, reason):
        found = scored(command, timeout_s=1.0)
        assert found.value is None
        assert reason in found.reason

    def test_a_server_is_there_while_it_runs_and_gone_afterwards(self, tmp_path):
        (tmp_path / "models").write_text("{}")
        ports = []

        def server(port: int) -> Served:
            ports.append(port)
            serve = f"{sys.executable} -m http.server {port} --bind 127.0.0.1"
            # The second line is the server; the first may write files where it is run.
            command = f"echo x > config.json\n{serve} --directory {tmp_path}"
            return Served(f"http://127.0.0.1:{port}", command)

        ask = (
            "import os, urllib.request as u;"
            "print(u.urlopen(os.environ['SWEEPER_ENDPOINT'] + '/models').status)"
        )
        found = scored(f'{sys.executable} -c "{ask}"', Fake(server))
        assert (found.value, found.reason) == (200.0, None)
        [port] = ports
        left = [
            each
            for each in psutil.process_iter(["cmdline"])
            if str(port) in (each.info["cmdline"] or ())
        ]
        assert left == []

    def test_a_server_that_ends_gives_no_score(self):
        found = scored("echo 1", Fake(lambda port: Served("http://127.0.0.1:1/v1", "exit 7")))
        assert found.value is None
        assert "server_ended: with status 7" in found.reason

    def test_a_server_that_runs_already_is_only_named(self):
        served = Served(f"http://127.0.0.1:{free_port()}/v1", None)
        found = scored("echo ${#SWEEPER_ENDPOINT}", Fake(lambda port: served))
        assert found.value == len(served.url)

    @pytest.mark.parametrize(
        ("command", "best", "why"),
        [
            ("echo 0.9", True, "least energy"),
            ("echo 0.1", False, "quality: a score of 0.1, below 0.5"),
            ("exit 1", False, "quality: its scorer gave no score"),
        ],
    )
    def test_a_configuration_is_recommended_by_its_score(self, command, best, why, tmp_path):
        study = replace(
            simulated(batch_sizes=(1, 4), measure=MEASURE),
            quality=QualitySpec(command=f"echo run >> {tmp_path}/times\n{command}", min=0.5),
        )
        folder = Kept(study, tmp_path).measure()
        assert_verified(folder)
        records = read(folder / FILE).standing()
        assert (tmp_path / "times").read_text() == "run\n"
        [answer] = answers(records, study)
        assert (answer.best is not None) is best
        assert why in answer.why
        for record in records:
            assert record.status == "ok"
            told = record.environment["quality"]
            assert told["score"] == record.metrics.get("quality_score")
            failed = [check for check in record.checks if check.name == "quality"]
            assert [check.ok for check in failed] == ([] if command != "exit 1" else [False])


ASK = """\
import json, os, urllib.request as u
url = os.environ["SWEEPER_ENDPOINT"]
model = json.load(u.urlopen(url + "/models"))["data"][0]["id"]
body = {"model": model, "prompt": [1, 2, 3], "max_tokens": 5, "min_tokens": 5, "temperature": 0}
body = json.dumps(body | {"ignore_eos": True, "return_token_ids": True}).encode()
sent = u.Request(url + "/completions", body, {"Content-Type": "application/json"})
told = json.load(u.urlopen(sent))
print(json.dumps({"score": told["usage"]["completion_tokens"]}))
"""


@pytest.mark.slow
@pytest.mark.engine
def test_vllm_is_served_as_its_record_says(tmp_path):
    if engine_traits("vllm").needs_gpu:
        pytest.skip("made for processors")
    (tmp_path / "ask.py").write_text(ASK)
    spec = EngineSpec(kind="vllm", dtype="float32", compile=False, graphs=False)
    settings = Settings(model=ModelSpec(shape="tiny", weights="dummy"), engine=spec)
    sizes = Sizes(max_model_len=64, max_batch_size=4, batch_sizes=(4,))
    engine = engine_class("vllm")(settings, sizes, (), RealClock())
    scorer = QualitySpec(command=f"{sys.executable} {tmp_path}/ask.py", min=1)
    found = score(scorer, settings, engine, lambda: None)
    assert (found.value, found.reason) == (5.0, None)


def of_configurations(**quality: Any) -> Study:
    axes = (
        Axis(label=QUANTIZED, choices=({QUANTIZED: None}, {QUANTIZED: "fp8"})),
        Axis(label=SIZE, choices=({SIZE: 1}, {SIZE: 8})),
    )
    return Study(name="s", settings=Settings(), axes=axes, **quality)


def test_a_score_is_of_every_point_of_its_configuration():
    spec = QualitySpec(command="x", min=0.5)
    records = [
        make_record(
            f"{kind}-{size}-{stage}",
            stage=stage,
            configuration=str(kind),
            chosen={QUANTIZED: kind, SIZE: size},
            metrics=two_objectives(energy, 1.0, **more),
        )
        for kind, size, stage, energy, more in [
            ("fp8", 1, "full", 1.0, {"quality_score": 0.4}),
            ("fp8", 8, "final", 1.0, {}),
            (None, 1, "full", 2.0, {"quality_score": 0.6}),
            (None, 8, "full", 3.0, {}),
        ]
    ]
    [answer] = answers(records, of_configurations(quality=spec))
    found = {each.id: each.value("quality_score") for each in answer.group.results}
    assert found == {
        "fp8-1-full": 0.4,
        "fp8-8-final": 0.4,
        "None-1-full": 0.6,
        "None-8-full": 0.6,
    }
    assert answer.best is not None
    assert answer.best.id == "None-1-full"
    assert "2 more are quality: too low or not known" in answer.why
    [allowed] = answers(records, of_configurations(quality=replace(spec, min=0.4)))
    assert allowed.best is not None
    assert allowed.best.chosen[QUANTIZED] == "fp8"


def test_each_configuration_is_scored_before_one_of_its_launches():
    study = of_configurations(quality=QualitySpec(command="x", min=0.5))
    study = replace(study, settings=replace(study.settings, measure=MeasureSpec(launches=3)))
    scoring = [each for each in plan(study).launches if each.quality is not None]
    assert {each.points[0].configuration for each in scoring} == {
        point.configuration for point in expand(study)[0]
    }
    assert [each.number for each in scoring] == [0, 0]
    begun = {(point.id, 0, "full") for point in expand(study)[0][:1]}
    left = [each for each in plan(study, done=begun).launches if each.quality is not None]
    assert len(left) == 1
    unscored = plan(replace(study, quality="unchecked_ok")).launches
    assert [each.quality for each in unscored] == [None] * len(unscored)


def test_a_study_may_have_a_scorer_and_its_rehearsal_runs_none(tmp_path: Path):
    from sweeper.forecast import parse_pool

    text = {"model": {"shape": "llama-3.1-8b", "weights": "dummy"}, "name": "q"}
    (tmp_path / "q.yaml").write_text(json.dumps(text | {"quality": {"command": "x", "min": 1}}))
    study = load(tmp_path / "q.yaml")
    assert unavailable(study) == []
    assert rehearsed(study, parse_pool("1x8:H100")).quality == "unchecked_ok"
