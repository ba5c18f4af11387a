"""Whether a node can launch a configuration: its engine, its model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.cluster.pool import Node
from sweeper.driver import Options, refuse_impossible, taken_back
from sweeper.engines import ENGINES, TRAITS
from sweeper.engines.access import faults, model_fault
from sweeper.errors import JournalError, PlaceError
from sweeper.plan import plan
from sweeper.results.contents import Contents
from sweeper.spec import EngineSpec, ModelSpec, ResourcesSpec, Settings
from tests.loopback import Quiet, free_port, web
from tests.records import make_record
from tests.studies import simulated as pretend_study

ROOT = Path(__file__).parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1"}
INDEX = "model.safetensors.index.json"


def folder(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


def fault(model, environment=OFFLINE, **fields):
    return model_fault(ModelSpec(id=str(model), **fields), environment)


def simulated(**options):
    model = options.pop("model", ModelSpec(shape="tiny"))
    return Settings(model=model, engine=EngineSpec(kind="simulated", options=options))


def test_dummy_weights_of_a_shape_need_nothing():
    assert fault("no/where", shape="tiny", weights="dummy") is None
    assert fault("/no/where", shape="tiny", weights="dummy_zeros") is None
    assert model_fault(ModelSpec(shape="tiny", weights="dummy"), OFFLINE) is None


def test_a_local_folder_that_is_whole_is_enough(tmp_path):
    whole = folder(tmp_path / "whole", config__json="{}", model__safetensors="")
    assert fault(whole) is None
    index = json.dumps({"weight_map": {"a": "one.bin", "b": "two.bin"}})
    sharded = folder(tmp_path / "sharded", config__json="{}", one__bin="", two__bin="")
    (sharded / INDEX).write_text(index)
    assert fault(sharded) is None
    (sharded / "two.bin").unlink()
    said = fault(sharded)
    assert "lacks 1 of 2 files of weights, such as two.bin; to measure without its weights" in said
    (sharded / INDEX).write_text("[]")
    assert f"has a damaged {INDEX}: copy it again" in fault(sharded)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no config.json: it is not a model's"),
        ({"config__json": "{"}, "config.json cannot be read"),
        ({"config__json": "[]"}, "is not a model's configuration"),
        ({"config__json": "{}"}, "has no weights (*.safetensors, *.bin); to measure without its"),
    ],
)
def test_a_folder_that_is_no_model_is_said(tmp_path, files, said):
    found = fault(folder(tmp_path / "model", **files))
    assert found.startswith("model.id: ")
    assert said in found


def test_only_the_configuration_is_needed_where_weights_are_drawn(tmp_path):
    assert fault(folder(tmp_path / "model", config__json="{}"), weights="dummy") is None


def test_a_path_that_is_not_there_is_said_and_never_looked_up(tmp_path):
    for name in (tmp_path / "nowhere", "./nowhere", "some/deep/folder"):
        assert f"there is no folder {name}: correct it, or put the model" in fault(name, {})
    assert "(~ is not expanded)" in fault("~/llama", {})
    (tmp_path / "file").write_text("")
    assert "is a file: name the folder" in fault(tmp_path / "file", {})


def cached(home, name, revision="main"):
    """A model in the hub's cache, without weights."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder(place / "snapshots" / ("c" * 40), config__json="{}")
    folder(place / "refs")
    (place / "refs" / revision).write_text("c" * 40)
    return snapshot


def test_a_model_in_the_cache_is_had_without_network(tmp_path):
    environment = {**OFFLINE, "HF_HOME": str(tmp_path)}
    said = fault("some/model", environment)
    assert "is no folder here and is not in the cache, and HF_HUB_OFFLINE forbids" in said
    assert "hf download some/model" in said
    snapshot = cached(tmp_path, "some/model")
    assert "is not whole in the cache" in fault("some/model", environment)
    assert fault("some/model", environment, weights="dummy") is None
    (snapshot / "model.safetensors").write_text("")
    assert fault("some/model", environment) is None
    assert "is not in the cache" in fault("some/model", environment, revision="v2")
    elsewhere = {**environment, "HF_HUB_CACHE": str(tmp_path / "other")}
    assert "is not in the cache" in fault("some/model", elsewhere)
    assert fault("some/model", {**elsewhere, "HF_HUB_CACHE": str(tmp_path / "hub")}) is None


def test_a_name_that_no_hub_has_is_said():
    assert "is neither a folder here nor a model of the hub" in fault("a b/c")


class Hub(Quiet):
    """Answers about `config.json` as the hub does."""

    REFUSALS = {  # noqa: RUF012
        "gated": (403, "GatedRepo"),
        "hidden": (401, "RepoNotFound"),
        "other": (404, "EntryNotFound"),
        "broken": (500, ""),
    }

    def do_HEAD(self):  # noqa: N802
        _, owner, *_ = self.path.split("/")
        if owner == "closed" and self.headers.get("Authorization") == "Bearer hf_mine":
            owner = "open"
        status, code = self.REFUSALS.get("gated" if owner == "closed" else owner, (200, ""))
        if "/resolve/v9/" in self.path:
            status, code = 404, "RevisionNotFound"
        self.send_response(status)
        self.send_header("X-Error-Code" if code else "X-Repo-Commit", code or "c" * 40)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", "2")
        self.end_headers()


ASKS = """
import json, sys
from sweeper.engines.access import model_fault
from sweeper.spec import ModelSpec
asked, environment = json.load(sys.stdin)
print(json.dumps([model_fault(ModelSpec(**each), environment) for each in asked]))
"""


def asked_online(tmp_path, endpoint, models, **environment):
    """What is said of models where the hub may be asked; of a new process."""
    given = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}
    child = subprocess.run(
        [sys.executable, "-c", ASKS],
        input=json.dumps([models, given]),
        env={**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT), **given, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(child.stdout)


def test_the_hub_is_asked_and_its_refusals_are_explained(tmp_path):
    names = ("open/model", "gated/model", "hidden/model", "other/model", "broken/model")
    models = [{"id": name} for name in names]
    models += [{"id": "open/model", "revision": "v9"}, {"id": "closed/model"}]
    with web(Hub) as port:
        endpoint = f"http://127.0.0.1:{port}"
        opened, gated, hidden, other, broken, revision, closed = asked_online(
            tmp_path, endpoint, models, HF_TOKEN="hf_mine"
        )
    assert opened is None
    assert closed is None
    assert gated.startswith("model.id: gated/model is gated: accept its licence on ")
    assert f"{endpoint}/gated/model, and set HF_TOKEN" in gated
    assert "model.weights=dummy" in gated
    assert "hidden/model is neither a folder here nor a model that the hub shows you" in hidden
    assert "other/model has no config.json on the hub" in other
    assert "broken/model is not in the cache, and" in broken
    assert broken.endswith("answers with HTTP status 500")
    assert revision.startswith("model.revision: open/model has no revision v9")


def test_without_a_network_a_cached_model_is_had_and_another_is_not(tmp_path):
    snapshot = cached(tmp_path, "some/model")
    (snapshot / "model.safetensors").write_text("")
    endpoint = f"http://127.0.0.1:{free_port()}"
    had, missing = asked_online(tmp_path, endpoint, [{"id": "some/model"}, {"id": "some/other"}])
    assert had is None
    assert f"is no folder here and is not in the cache, and {endpoint} cannot be reached" in missing
    assert "name a local folder" in missing


def test_every_reason_is_told_once():
    unknown = ModelSpec(id="some/model")
    found = faults([simulated(), simulated(gpu="H200"), simulated(load_s=1, model=unknown)])
    [said] = found
    assert "the shape of some/model is not known" in said
    assert faults([simulated(model=unknown), simulated(noise=0.1, model=unknown)]) == found


def test_options_that_make_no_sense_are_told():
    [said] = faults([simulated(nois=1)])
    assert said.startswith("engine.options.nois: not an option of the simulated engine; known: ")


BARE = """
from sweeper.engines import engine_class
from sweeper.engines.access import faults
from sweeper.errors import PlaceError
from sweeper.spec import EngineSpec, ModelSpec, Settings
engine = EngineSpec(kind="transformers")
print(*faults([Settings(engine=engine, model=ModelSpec(id="some/model"))]))
try:
    engine_class("transformers")
except PlaceError as error:
    print(error)
"""


def test_an_engine_whose_library_is_missing_says_what_to_install():
    child = subprocess.run(
        [sys.executable, "-S", "-c", BARE],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    way = "pip install 'sweeper[transformers]'"
    assert child.stdout.splitlines() == [
        f"engine.kind: transformers needs torch and transformers, not installed here: {way}",
        f"engine.kind: transformers cannot be used here (No module named 'torch'): {way}",
    ]


def test_what_an_engine_can_do_is_known_without_its_library():
    code = (
        "import sys; from sweeper.engines import TRAITS, engine_traits\n"
        "[engine_traits(kind) for kind in TRAITS]\n"
        "print(sorted({'torch', 'transformers', 'vllm'} & sys.modules.keys()))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert child.stdout == "[]\n"
    assert TRAITS.keys() == ENGINES.keys()


def test_transformers_checks_its_model(tmp_path):
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    engine = EngineSpec(kind="transformers", env=env)
    [said] = faults([Settings(model=ModelSpec(id="some/model"), engine=engine)])
    assert "HF_HUB_OFFLINE forbids" in said
    assert faults([Settings(model=ModelSpec(shape="tiny", weights="dummy"), engine=engine)]) == []


class Pretend:
    """A cluster of one node with 2 GPUs, whose models are not there."""

    nodes = (Node(id="n", host="h", devices=("0", "1"), gpus=2, cpus=8.0),)
    resources = ResourcesSpec()

    def __init__(self):
        self.asked = []

    def preflight(self, asked):
        self.asked += asked
        return ["model.id: not there", "model.id: nor this"] if asked else []


def test_what_is_left_to_do_is_held_against_the_cluster_and_nothing_else():
    wide = pretend_study(tensor_parallel=4, batch_sizes=(1, 4))
    session = Pretend()
    with pytest.raises(PlaceError, match="4 GPUs for one launch, on 2-GPU nodes: take such values"):
        refuse_impossible(plan(wide), session)
    assert session.asked == []
    narrow = pretend_study(batch_sizes=(1, 4))
    with pytest.raises(PlaceError, match=r"model\.id: not there\nmodel\.id: nor this"):
        refuse_impossible(plan(narrow), session)
    assert len(session.asked) == 1, "one for each configuration"
    for study in (wide, narrow):
        done = {(point.id, 0, "full") for point in plan(study).points}
        refuse_impossible(plan(study, done=done), Pretend())


def sittings(*environments):
    return tuple({"environment": each} for each in environments)


HERE = {"versions": {"ray": "1"}, "drivers": [], "gpu_models": ["H100"]}
THERE = {"versions": {"ray": "2"}, "drivers": [], "gpu_models": ["H100"]}


@pytest.mark.parametrize(
    ("changed", "retry", "environment", "again"),
    [
        ("stop", None, HERE, []),
        ("stop", "energy_invalid", HERE, ["bad"]),
        ("mix", None, THERE, []),
        ("remeasure", None, HERE, []),
        ("remeasure", None, THERE, ["good", "bad"]),
    ],
)
def test_what_is_measured_again_is_what_was_asked_for(tmp_path, changed, retry, environment, again):
    records = (make_record("good"), make_record("bad", status="energy_invalid"))
    before = Contents(records=records, sittings=sittings(HERE))
    options = Options(root=tmp_path, changed=changed, retry=retry)
    found = taken_back(before, environment, tmp_path, options)
    assert [record.id for record in found] == again


def test_another_environment_stops_a_study_that_has_records(tmp_path):
    options = Options(root=tmp_path)
    before = Contents(records=(make_record("good"),), sittings=sittings(THERE, HERE))
    with pytest.raises(JournalError, match=r"environment changed.*--remeasure.*--mix"):
        taken_back(before, THERE, tmp_path, options)
    nothing = Contents(sittings=sittings(HERE))
    assert taken_back(nothing, THERE, tmp_path, options) == []
    assert taken_back(Contents(), THERE, tmp_path, options) == []
