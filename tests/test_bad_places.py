"""Places that cannot be used, through the real command line: said before a GPU is held."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.results.contents import FILE, read
from tests.commands import Command, until
from tests.studies import write

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a node that says it has 2 GPUs, in a process of its own."""
    folder = tmp_path_factory.mktemp("cluster")
    code = (
        "import sys, time; from ray.cluster_utils import Cluster\n"
        "c = Cluster(initialize_head=True, head_node_args=dict(num_cpus=4, num_gpus=2,"
        " object_store_memory=100 * 2**20))\n"
        "open('address', 'w').write(c.address + '\\n')\n"
        "sys.stdin.read()\n"
        "c.shutdown()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (folder / "log").open("wb") as log:
        holder = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    address = folder / "address"
    assert until(lambda: address.exists() and address.read_text().endswith("\n"), 90.0)
    yield address.read_text().strip()
    holder.stdin.close()
    holder.wait(60)


def refused(path: Path, *words: str) -> str:
    """What is said of a study that is refused; nothing of it is left."""
    command = Command(path, *words)
    status = command.wait()
    assert status == 2, command.err
    assert command.out == ""
    assert "Traceback" not in command.err
    assert command.err.startswith("sweeper: ")
    assert not (path.parent / "mlruns").exists()
    assert command.left() == []
    return command.err.removeprefix("sweeper: ").strip()


def test_a_launch_that_no_node_holds_is_refused(tmp_path, cluster):
    path = write(tmp_path, address=cluster)
    said = refused(path, "engine.tensor_parallel=4")
    assert said.startswith("4 GPUs for one launch, on 2-GPU nodes: take such values out of the")


def test_models_that_are_not_there_are_all_named_before_a_gpu_is_held(tmp_path, cluster):
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.mkdir()
    path = tmp_path / "models.yaml"
    path.write_text(f"""
name: models
model: {{weights: auto}}
engine: {{kind: transformers}}
workload: {{batching: static}}
axes: {{model.id: ['{missing}', '{empty}', some/model]}}
cluster: {{address: '{cluster}'}}
""")
    lines = refused(path).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"model.id: there is no folder {missing}: correct it, or put")
    assert lines[1] == f"model.id: the folder {empty} has no config.json: it is not a model's"
    assert re.match(r"model\.id: some/model is no folder here and is not in the cache", lines[2])


def test_a_gpu_type_that_is_not_there_is_refused(tmp_path, cluster):
    said = refused(write(tmp_path, address=cluster), "resources.accelerator=H100")
    assert said.startswith("resources.accelerator: no node has H100; there is no known GPU")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://host:1", "ray://host:1 is a Ray Client address; give"),
        ("127.0.0.1:1", "nothing answers at 127.0.0.1:1 (["),
        ("nonsense", "nothing answers at nonsense (not of the form host:port): give the host:port"),
    ],
)
def test_a_cluster_that_does_not_answer_is_refused(tmp_path, address, said):
    told = refused(write(tmp_path), f"cluster.address={address}")
    assert told.startswith(f"cluster.address: {said}")


def read_only(words, folder):
    """Runs as a root whom permission bits bind, where the kernel lets it be so."""
    bound = (
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    )
    if bound and subprocess.run([*bound, "true"], check=False).returncode:
        pytest.skip("root, and setpriv may not take its capabilities")
    return subprocess.run(
        [*bound, sys.executable, "-m", "sweeper", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root, and no setpriv"
)
def test_a_folder_that_nobody_may_write_is_refused_before_anything_starts(tmp_path):
    write(tmp_path)
    place = tmp_path / "mlruns"
    place.mkdir()
    place.chmod(0o555)
    try:
        ended = read_only(["little.yaml"], tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == (
            "sweeper: cannot write mlruns/studies/little: Permission denied: make the folder "
            "writable, or type the command in a folder that is\n"
        )
        assert list(place.iterdir()) == []
    finally:
        place.chmod(0o755)


@pytest.mark.slow
def test_a_second_driver_is_refused_and_the_first_goes_on(tmp_path, cluster):
    """The first waits in a launch that hangs; what it has stays as it is."""
    path = write(tmp_path, address=cluster, options="{time_scale: 1.0, load_s: 600}")
    first = Command(path)
    try:
        assert first.reaches(lambda journal: bool(journal.sittings)), first.err
        held = (tmp_path / "mlruns" / "studies" / "little" / FILE).read_bytes()
        second = Command(path)
        assert second.wait() == 2
        assert "Traceback" not in second.err
        assert re.match(rf"sweeper: .*\b{first.process.pid}\b", second.err)
        assert first.process.poll() is None
        assert (tmp_path / "mlruns" / "studies" / "little" / FILE).read_bytes().startswith(held)
        assert len(read(first.journal_path).sittings) == 1
        first.signal(signal.SIGINT)
        assert first.wait() == 130
    finally:
        first.kill()
