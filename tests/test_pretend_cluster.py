"""Whole studies by the real command on a pretend cluster: 2 nodes with 4 stand-in GPUs each."""

import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeper.results.record import Window
from sweeper.trial.guardian import processes
from tests.commands import MARK, Carrier, Command, engines, of_lease, until
from tests.nvml_standin import Gpu, Scenario, environment
from tests.studies import write

pytestmark = [pytest.mark.ray, pytest.mark.nvml]
pytest_plugins = ("tests.nvml_standin.fixtures",)

NODES = [[f"GPU-{node}{index}" for index in range(4)] for node in "ab"]
CPUS = 8


def gpu(uuid: str, number: int) -> Gpu:
    """Power of its own, drifting and waving, behind a counter of its own phase.

    Every wave is whole in 5 s, so that two idle intervals in a row soon agree.
    """
    return Gpu(
        uuid=uuid,
        pci=f"00000000:{number + 1:02X}:00.0",
        power_w=((0.0, 200.0 + 40.0 * number), (150.0, 260.0 + 40.0 * number)),
        linear=True,
        sine=(30.0, 0.4 + 0.2 * number, float(number)),
        counter_period_s=0.1,
        counter_phase_s=0.013 * number,
    )


class Pretended:
    """A cluster, the world its GPUs live in, and how to add a node to it."""

    def __init__(self, cluster: Any, world: Scenario, variables: Mapping[str, str]) -> None:
        self.cluster = cluster
        self.world = world
        self.mark = variables[MARK]
        self._variables = variables

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, gpus: Sequence[str]) -> Any:
        return self.cluster.add_node(**settings(gpus, self._variables))

    def joules(self, window: Window) -> float:
        """What the GPUs truly used between the readings of a window."""
        opening, closing = window.readings
        return sum(
            self.world.joules(uuid, opening["t_s"], closing["t_s"]) for uuid in opening["energy_j"]
        )


def settings(gpus: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    return {
        "num_cpus": CPUS,
        "num_gpus": len(gpus),
        "object_store_memory": 100 * 2**20,
        "include_dashboard": False,
        "env_vars": {**variables, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
    }


@pytest.fixture(scope="module")
def pretended(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pretended]:
    from ray.cluster_utils import Cluster

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    uuids = [uuid for node in NODES for uuid in node]
    world = Scenario(gpus=tuple(gpu(uuid, number) for number, uuid in enumerate(uuids)))
    path = world.write(tmp_path_factory.mktemp("world") / "scenario.txt")
    found = environment(
        nvml_library, path, {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
    )
    variables = {**found, "RAY_worker_niceness": "0", MARK: secrets.token_hex(8)}
    cluster = Cluster(initialize_head=True, head_node_args=settings(NODES[0], variables))
    try:
        pretended = Pretended(cluster, world, variables)
        pretended.add(NODES[1])
        yield pretended
    finally:
        cluster.shutdown()


@pytest.fixture(autouse=True)
def _no_command_left() -> Iterator[None]:
    yield
    Command.kill_all()


@pytest.mark.parametrize("launches", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_energy_is_the_scenarios_on_whole_gpus_of_one_node(
    pretended: Pretended, tmp_path: Path, launches: int
) -> None:
    study = write(
        tmp_path, name="widths", address=pretended.address, batch_sizes="[4]", options="{load_s: 1}"
    )
    command = Command(
        study,
        "axes={engine.tensor_parallel: [1, 2, 4]}",
        "meter=nvml",
        "measure.repeats=1",
        f"measure.launches={launches}",
    )
    widths = sorted([1, 2, 4] * launches)
    assert command.wait() == 0, command.err
    journal = command.journal
    assert sorted(record.gpus for record in journal.records) == widths
    for record in journal.records:
        assert (record.status, record.attempt) == ("ok", 0)
        assert record.energy is not None
        assert (record.energy.source, record.energy.method) == ("nvml", "counter")
        [window] = record.windows
        true_j = pretended.joules(window)
        assert window.duration_s >= 5
        assert window.energy_j == pytest.approx(true_j, rel=0.01)
        assert record.metrics["energy_j"] == pytest.approx(true_j, rel=0.01)
        per_token_j = true_j / window.output_tokens
        assert record.metrics["energy_per_output_token_j"] == pytest.approx(per_token_j, rel=0.01)

    held: dict[str, str] = {}
    for line in map(json.loads, command.journal_path.read_text().splitlines()):
        if line["kind"] == "trial":
            devices = line["devices"]
            assert any(set(devices) <= set(node) for node in NODES), devices
            assert held.keys().isdisjoint(devices), (line, held)
            held |= dict.fromkeys(devices, line["trial_id"])
        elif line["kind"] == "ended":
            held = {gpu: by for gpu, by in held.items() if by != line["trial_id"]}
    assert held == {}
    assert sorted(len(trial["devices"]) for trial in journal.trials) == widths
    by_trial = {trial["trial_id"]: set(trial["devices"]) for trial in journal.trials}
    for record in journal.records:
        assert all(
            set(read["energy_j"]) == by_trial[record.trial_id]
            for window in record.windows
            for read in window.readings
        )


@pytest.mark.slow
def test_a_lease_with_a_node_to_itself_counts_its_idle_gpus(
    pretended: Pretended, tmp_path: Path
) -> None:
    study = write(
        tmp_path, name="alone", address=pretended.address, batch_sizes="[4]", options="{load_s: 1}"
    )
    command = Command(
        study,
        "meter=nvml",
        "measure.repeats=1",
        "measure.launches=1",
        "resources.exclusive_node=true",
    )
    assert command.wait() == 0, command.err
    [record] = command.journal.records
    assert record.environment["exclusive_node"] is True
    [window] = record.windows
    opening, closing = window.readings
    [used] = opening["energy_j"]
    idle = sorted(set(next(uuids for uuids in NODES if used in uuids)) - {used})
    told = [each["components"]["idle_gpu"] for each in (opening, closing)]
    assert [sorted(each["energy_j"]) for each in told] == [idle, idle]
    span = opening["t_s"], closing["t_s"]
    true_j = sum(pretended.world.joules(uuid, *span) for uuid in idle)
    assert record.metrics["idle_gpu_energy_j"] == pytest.approx(true_j, rel=0.04)
    assert window.energy_j == pytest.approx(pretended.joules(window), rel=0.01)
    assert [len(trial["devices"]) for trial in command.journal.trials] == [4]


@pytest.mark.slow
def test_kills_of_an_actor_and_of_a_raylet_leave_nobody_and_lose_nothing(
    pretended: Pretended, tmp_path: Path
) -> None:
    options = "{isolated: true, helpers: 2, time_scale: 0.2, load_s: 1}"
    study = write(tmp_path, name="killed", address=pretended.address, options=options)
    command = Command(study, "measure.launches=2", "axes.engine.tensor_parallel=[1, 2]")
    doomed = next(iter(pretended.cluster.worker_nodes))
    try:
        assert until(lambda: len(working(pretended)) >= 1, 60), command.err
        first = working(pretended)[0]
        assert len(of_lease(first)) >= 5  # the engine, two helpers, a child of each
        os.kill(first.parent, signal.SIGKILL)
        assert until(lambda: of_lease(first) == [], 30)

        raylet = doomed.all_processes["raylet"][0].process.pid
        assert until(lambda: on_node(pretended, raylet) != [], 60), command.err
        second = on_node(pretended, raylet)
        os.kill(raylet, signal.SIGKILL)
        assert until(lambda: [pid for each in second for pid in of_lease(each)] == [], 30)
        assert command.wait() == 0, command.err
    finally:
        command.kill()
        pretended.cluster.remove_node(doomed, allow_graceful=False)
        pretended.add(NODES[1])
    journal = command.journal
    accepted = Counter(record.key for record in journal.records if record.accepted)
    assert len(accepted) == 8
    assert set(accepted.values()) == {1}
    assert {record.status for record in journal.records} == {"ok"}
    assert len(journal.deaths) >= 2
    assert until(lambda: engines(pretended.mark) == [], 30)


def working(pretended: Pretended) -> list[Carrier]:
    """The engines that have all of their helpers."""
    return [each for each in engines(pretended.mark) if len(of_lease(each)) >= 5]


def on_node(pretended: Pretended, raylet: int) -> list[Carrier]:
    """The working engines whose actor is a worker of that raylet."""
    parents = {process.pid: process.parent for process in processes()}
    return [each for each in working(pretended) if parents.get(each.parent) == raylet]


@pytest.mark.slow
def test_verdicts_of_another_environment_are_asked_about(
    pretended: Pretended, tmp_path: Path
) -> None:
    options = "{fail: {kind: error, batch_size: 4, attempts: 2}}"
    study = write(tmp_path, name="changed", address=pretended.address, options=options)
    command = Command(study)
    assert command.wait() == 1, command.err
    assert verdicts(command)[4] == ("failed", 1)
    assert verdicts(command)[1][0] == "ok"

    pretend_another_environment(command)
    before = command.journal_path.read_bytes()
    command = Command(study)
    assert command.wait() == 2
    assert "torch 1.0 -> " in command.err
    assert "--remeasure" in command.err
    assert command.journal_path.read_bytes() == before

    command = Command(study, "--mix", "--retry", "failed", "--json")
    assert command.wait() == 0, command.err
    assert json.loads(command.out)["ok"] == 2
    assert command.journal.superseded == frozenset()
    mixed = command.journal
    assert verdicts(command)[4] == ("ok", 2)
    assert len(mixed.records) == 3

    pretend_another_environment(command)
    command = Command(study, "--remeasure")
    assert command.wait() == 0, command.err
    journal = command.journal
    taken_back = [journal.records[position] for position in sorted(journal.superseded)]
    assert taken_back == [record for record in mixed.records if record.accepted]
    assert len(journal.records) == 5
    assert list(journal.accepted().values()) == list(journal.records[3:])
    assert {status for status, _ in verdicts(command).values()} == {"ok"}


def verdicts(command: Command) -> dict[int, tuple[str, int]]:
    """Status and attempt of what stands for each batch size."""
    standing = command.journal.standing()
    return {each.chosen["workload.batch_size"]: (each.status, each.attempt) for each in standing}


def pretend_another_environment(command: Command) -> None:
    """As if all sittings so far had been with another torch."""
    lines = [json.loads(line) for line in command.journal_path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "sitting":
            line["environment"]["versions"]["torch"] = "1.0"
    command.journal_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
