"""The records that `docs/results` tells of: every number is made again from them."""

import tarfile
from pathlib import Path

import pytest

from tests.verified import assert_verified

RECORDS = Path(__file__).resolve().parent.parent / "docs" / "results" / "records"


@pytest.mark.long
@pytest.mark.parametrize("name", ["h200_batch", "h200_framework"])
def test_committed_records_are_verified(name, tmp_path):
    with tarfile.open(RECORDS / f"{name}.tgz") as packed:
        packed.extractall(tmp_path, filter="data")
    assert_verified(tmp_path / name)
