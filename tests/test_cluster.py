"""Trials on a pretend cluster of 2 nodes with 4 GPUs each, through the real Tune."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import PlaceError
from sweeper.spec import (
    ClusterSpec,
    EngineSpec,
    Launch,
    Point,
    ResourcesSpec,
    Settings,
    Sizes,
    Study,
    Trial,
)
from sweeper.trial.environment import describe
from sweeper.trial.guardian import processes
from tests.searches import Listed

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parent.parent
LEASE = "tests.ray_lease:FakeLease"
STUDY = Study(name="pretend", settings=Settings(engine=EngineSpec(kind="simulated")))
SIZES = Sizes(max_model_len=8, max_batch_size=1, batch_sizes=(1,))
GPUS = [[f"GPU-{node}{index}" for index in range(4)] for node in "ab"]


def trial(name: str, gpus: int, points: int = 3) -> Trial:
    made = tuple(
        Point(
            id=f"{name}/{index}",
            configuration=name,
            condition={},
            chosen={},
            settings=STUDY.settings,
        )
        for index in range(points)
    )
    launch = Launch(number=0, stage="full", sizes=SIZES, points=made)
    return Trial(id=name, gpus=gpus, launches=(launch,), expected_s=float(points))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    def settings(gpus: list[str]) -> dict[str, Any]:
        return {
            "num_cpus": 4,
            "num_gpus": len(gpus),
            "object_store_memory": 100 * 2**20,
            "env_vars": {
                "CUDA_VISIBLE_DEVICES": ",".join(gpus),
                "PYTHONPATH": str(ROOT),
                "RAY_worker_niceness": "0",
                "SWEEPER_TEST_FOLDER": str(folder),
            },
        }

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    cluster = Cluster(initialize_head=True, head_node_args=settings(GPUS[0]))
    try:
        cluster.add_node(**settings(GPUS[1]))
        cluster.settings = settings
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def session(cluster: Any) -> Iterator[Any]:
    from sweeper.cluster.session import connect

    before = signal.getsignal(signal.SIGTERM)
    with connect(ClusterSpec(address=cluster.address), ResourcesSpec()) as session:
        yield session
    signal.signal(signal.SIGTERM, before)


class Heard:
    """What `run` told, and when."""

    def __init__(self) -> None:
        self.events: list[tuple[Trial, dict[str, Any]]] = []

    def __call__(self, trial: Trial, event: dict[str, Any]) -> None:
        self.events.append((trial, event))

    def of(self, kind: str) -> list[tuple[Trial, dict[str, Any]]]:
        return [(trial, event) for trial, event in self.events if event["kind"] == kind]


def children(folder: Path) -> set[int]:
    """The processes of all fake engines that live."""
    files = [file for file in folder.iterdir() if file.suffix != ".part"]
    started = {int(pid) for file in files for pid in file.read_text().split()}
    return {process.pid for process in processes()} & started


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_trials_of_all_widths_through_deaths_hangs_and_kills(session: Any, folder: Path) -> None:
    from sweeper.cluster.dispatch import Patience
    from sweeper.cluster.tuning import run

    trials = [trial(f"good-{index}", width) for index, width in enumerate([1, 1, 1, 2, 2, 4, 4])]
    trials += [trial("dies-1", 1), trial("dies-2", 2), trial("hangs-1", 1), trial("killed-4", 4)]
    heard = Heard()
    run(
        Listed(trials),
        study=STUDY,
        session=session,
        on_event=heard,
        stop=lambda: False,
        lease_class=LEASE,
        patience=Patience(silence_s=8.0),
    )
    records = Counter((of.id, event["id"]) for of, event in heard.of("record"))
    assert records == {(t.id, p.id): 1 for t in trials for p in t.launches[0].points}
    assert heard.of("given_up") == []

    deaths = {of.id: event for of, event in heard.of("death")}
    assert set(deaths) == {"dies-1", "dies-2", "hangs-1", "killed-4"}
    assert all(event["point"] == f"{name}/1" for name, event in deaths.items())
    assert "silent" in deaths["hangs-1"]["reason"]

    loads = heard.of("phase")
    loads = [(of, event) for of, event in loads if event["phase"] == "load"]
    assert len(loads) == len(trials) + len(deaths)
    nodes = defaultdict(list)
    for of, event in loads:
        assert len(event["devices"]) == len(set(event["devices"])) == of.gpus
        assert any(set(event["devices"]) <= set(gpus) for gpus in GPUS)
        assert event["study"] == "pretend"
        assert event["nice"] == 0
        # What a lease says of its place hides nothing of what a record says of the machine.
        assert event.keys() & describe().keys() <= {"host"}
        nodes[of.id].append(event["node_id"])
    assert all(len(set(on)) == 2 for name, on in nodes.items() if name in deaths)

    assert overlaps(heard.events) == []
    assert until(lambda: children(folder) == set())


def overlaps(events: list[tuple[Trial, dict[str, Any]]]) -> list[str]:
    """Devices that two leases told of at the same time, each from its first event to its last."""
    spans: dict[tuple[str, int], list[float]] = {}
    devices: dict[tuple[str, int], list[str]] = {}
    for of, event in events:
        lease = (of.id, of.attempt)
        if "devices" in event:
            devices[lease] = event["devices"]
        if "at_s" in event:
            spans.setdefault(lease, []).append(event["at_s"])
    found = []
    for one, first in spans.items():
        for other, second in spans.items():
            shared = set(devices[one]) & set(devices[other])
            if one < other and shared and first[0] <= second[-1] and second[0] <= first[-1]:
                found.append(f"{one} and {other} on {sorted(shared)}")
    return found


def test_stop_ends_every_lease(session: Any, folder: Path) -> None:
    from sweeper.cluster.tuning import run

    heard = Heard()
    stop = threading.Event()

    def on_event(of: Trial, event: dict[str, Any]) -> None:
        heard(of, event)
        if len(heard.of("record")) == 2:
            stop.set()

    run(
        Listed([trial("forever-2", 2), trial("forever-4", 4)]),
        study=STUDY,
        session=session,
        on_event=on_event,
        stop=stop.is_set,
        lease_class=LEASE,
    )
    assert children(folder) == set()
    assert heard.of("given_up") == []


def test_ctrl_c_ends_every_lease_and_is_raised(session: Any, folder: Path) -> None:
    from sweeper.cluster.tuning import run

    def on_event(of: Trial, event: dict[str, Any]) -> None:
        if event["kind"] == "record":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(
            Listed([trial("forever-5", 1)]),
            study=STUDY,
            session=session,
            on_event=on_event,
            stop=lambda: False,
            lease_class=LEASE,
        )
    assert children(folder) == set()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_on_event_raises_ends_everything_and_is_raised(session: Any, folder: Path) -> None:
    from sweeper.cluster.tuning import run

    class FullDiskError(Exception):
        pass

    def on_event(of: Trial, event: dict[str, Any]) -> None:
        if event["kind"] == "record":
            raise FullDiskError

    with pytest.raises(FullDiskError):
        run(
            Listed([trial("forever-6", 1), trial("forever-7", 1)]),
            study=STUDY,
            session=session,
            on_event=on_event,
            stop=lambda: False,
            lease_class=LEASE,
        )
    assert until(lambda: children(folder) == set())


def test_nodes_probe_and_refusals(session: Any) -> None:
    import ray

    from sweeper.cluster.tuning import infeasible

    assert [node.gpus for node in session.nodes] == [4, 4]
    assert session.devices == 8
    assert not session.started
    seen = session.probe()
    assert {row["visible"] for row in seen} == {",".join(gpus) for gpus in GPUS}
    assert {row["nice"] for row in seen} == {0}
    assert session.environment()["versions"]["ray"] == ray.__version__
    refused = infeasible([trial("wide", 8), trial("fits", 4)], session)
    assert refused == {"wide": "8 GPUs for one launch, on 4-GPU nodes"}
    assert infeasible([trial("wide", 8)], session, elastic=8) == {}


def test_a_node_that_cannot_be_asked_does_not_hide_the_others(session: Any) -> None:
    from sweeper.cluster.asking import ask, told_by

    def question(place: int) -> float:
        return 1 / place

    arguments = {node: (place,) for place, node in enumerate(session.nodes)}
    (_, refusal), (_, answer) = told_by(question, arguments, 60.0)
    assert answer == 1.0
    assert isinstance(refusal, PlaceError)
    assert "division by zero" in str(refusal)
    with pytest.raises(PlaceError, match="division by zero"):
        ask(question, arguments, 60.0)


def test_other_peoples_work_is_seen_and_ours_is_not(session: Any) -> None:
    import ray
    from ray.util import placement_group, remove_placement_group

    node = session.nodes[0]
    ours = placement_group([{"GPU": 2}], bundle_label_selector=[{"ray.io/node-id": node.id}])
    ray.get(ours.ready(), timeout=30)
    assert until(lambda: session.free()[node.id].devices == 4)
    remove_placement_group(ours)

    @ray.remote(num_cpus=1, num_gpus=1, label_selector={"ray.io/node-id": node.id})
    class Holder:
        def ready(self) -> bool:
            return True

    holder = Holder.remote()
    assert ray.get(holder.ready.remote(), timeout=60)
    assert until(lambda: session.free()[node.id].devices == 3)
    ray.kill(holder)


def test_an_accelerator_that_is_not_there(session: Any) -> None:
    from sweeper.cluster.session import _chosen

    with pytest.raises(PlaceError, match=r"no node has H100; there is no known GPU"):
        _chosen(session.nodes, ResourcesSpec(accelerator="H100"))


@pytest.mark.slow
def test_a_node_that_dies_is_no_loss(cluster: Any, folder: Path) -> None:
    from sweeper.cluster.session import connect
    from sweeper.cluster.tuning import run

    gpus = [f"GPU-c{index}" for index in range(4)]
    doomed = cluster.add_node(**cluster.settings(gpus))
    trials = [trial(f"good-node{index}", 4, points=30) for index in range(3)]
    heard = Heard()

    def on_event(of: Trial, event: dict[str, Any]) -> None:
        heard(of, event)
        begun = {of.id for of, _ in heard.of("record")}
        if len(begun) == 3 and doomed in cluster.worker_nodes:
            cluster.remove_node(doomed, allow_graceful=False)

    before = signal.getsignal(signal.SIGTERM)
    with connect(ClusterSpec(address=cluster.address), ResourcesSpec()) as session:
        assert session.devices == 12
        run(
            Listed(trials),
            study=STUDY,
            session=session,
            on_event=on_event,
            stop=lambda: False,
            lease_class=LEASE,
        )
    signal.signal(signal.SIGTERM, before)
    records = Counter((of.id, event["id"]) for of, event in heard.of("record"))
    assert records == {(t.id, p.id): 1 for t in trials for p in t.launches[0].points}
    assert len(heard.of("death")) == 1
    assert until(lambda: children(folder) == set())


DRIVER = """
import sys
from sweeper.cluster.session import connect
from sweeper.cluster.tuning import run
from sweeper.spec import ClusterSpec, ResourcesSpec
from tests import test_cluster
from tests.searches import Listed

trial = test_cluster.trial("forever-1", 1)
with connect(ClusterSpec(address="local"), ResourcesSpec()) as session:
    assert session.started
    assert [node.devices for node in session.nodes] == [("cpu",)], session.nodes
    run(Listed([trial]), study=test_cluster.STUDY, session=session, on_event=lambda of, event: None,
        stop=lambda: False, lease_class=test_cluster.LEASE)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_survives_the_driver_that_started_ray(tmp_path: Path, number: int) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SWEEPER_TEST_FOLDER": str(tmp_path),
    }
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert until((tmp_path / "forever-1.0").exists)
        assert len(carriers(tmp_path)) > 5
        driver.send_signal(number)
        assert until(lambda: carriers(tmp_path) == set(), timeout_s=90.0)
    finally:
        driver.kill()
        told, _ = driver.communicate()
    assert driver.returncode == -number
    assert told == b""


def carriers(folder: Path) -> set[int]:
    """Every process that inherited the folder of a test."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(folder).encode() in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
    return found
