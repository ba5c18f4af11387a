"""The NVML meter agrees with Zeus, an independent reader of the same counters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nvml_standin import environment
from tests.nvml_standin.zeus_beside import PERIODS_S

pytest_plugins = ("tests.nvml_standin.fixtures",)
pytestmark = [pytest.mark.nvml, pytest.mark.process]


def test_zeus_agrees_within_two_periods_of_the_power(nvml_library: Path, tmp_path: Path) -> None:
    """All GPUs at once have their edges at a tick of the slowest counter, so two of its periods."""
    env = environment(nvml_library, tmp_path / "none", os.environ)
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    env.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.nvml_standin.zeus_beside", str(tmp_path)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for period_s in PERIODS_S:
        alike = [row for row in rows if row["period_s"] == period_s]
        assert sum(row["gpus"] == 1 for row in alike) >= 200
        assert sum(row["gpus"] > 1 for row in alike) >= 200
        for row in alike:
            assert abs(row["ours_j"] - row["zeus_j"]) <= 2 * row["slowest_s"] * row["peak_w"]
        for name in ("ours", "zeus"):
            errors = [abs(row[f"{name}_j"] / row[f"{name}_true_j"] - 1) for row in alike]
            print(f"{period_s} s, {name}: off by {max(errors):.3%} of the truth at most")
