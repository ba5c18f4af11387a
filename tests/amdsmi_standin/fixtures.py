"""Fixtures over the amdsmi stand-in; a test module asks for them with `pytest_plugins`."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.amdsmi_standin import PACKAGE, SCENARIO, Gpu, build, write
from tests.nvml_standin import compiler


@pytest.fixture(scope="session")
def rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ROCM_PATH names."""
    lacking = None
    if compiler() is None:
        lacking = "no C compiler (cc or gcc) to build the amdsmi stand-in"
    elif not PACKAGE.exists():
        lacking = "no amdsmi in .venv/opt: make setup"
    if lacking and os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(lacking)
    if lacking:
        pytest.skip(lacking)
    return build(tmp_path_factory.mktemp("rocm"))


@pytest.fixture
def amd_world(
    rocm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Sequence[Gpu]], Path]]:
    """Puts this process among GPUs until the test ends; another call changes them."""
    monkeypatch.syspath_prepend(PACKAGE)

    def enter(gpus: Sequence[Gpu]) -> Path:
        path = write(tmp_path / "gpus.txt", gpus)
        monkeypatch.setenv("ROCM_PATH", str(rocm))
        monkeypatch.setenv(SCENARIO, str(path))
        return path

    yield enter
    for name in [each for each in sys.modules if each.partition(".")[0] == "amdsmi"]:
        del sys.modules[name]
