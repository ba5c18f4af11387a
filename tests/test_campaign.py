"""`jobs/campaign.sh`: studies within a time, resumable, with their records brought home."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.verified import assert_verified

SCRIPT = Path(__file__).resolve().parent.parent / "jobs" / "campaign.sh"
STUDY = """\
name: {name}
model: {{shape: tiny}}
engine: {{kind: simulated}}
measure: {{warmup: {{min_batches: 1, max_batches: 2}}, min_window_s: 5, repeats: 2}}
axes: {{workload.batch_size: [1, 2]}}
cluster: {{address: local}}
"""


def campaign(folder: Path, seconds: int, *studies: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), str(seconds), "out", *studies],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPT.parent.parent)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_a_campaign_goes_on_where_its_time_was_up(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(STUDY.format(name=name))
    cut = campaign(tmp_path, 20, "one.yaml", "two.yaml")
    assert cut.returncode == 130
    assert (tmp_path / "out" / "doctor.txt").stat().st_size > 0
    whole = campaign(tmp_path, 200, "one.yaml", "two.yaml")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    for name in ("one", "two"):
        with tarfile.open(tmp_path / "out" / f"{name}.tgz") as packed:
            packed.extractall(tmp_path / "home", filter="data")
        assert_verified(tmp_path / "home" / name)
        assert not (tmp_path / "home" / name / "report.html").exists()
