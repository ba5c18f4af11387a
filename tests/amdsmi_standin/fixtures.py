"""Fixtures over the amdsmi stand-in; a test module asks for them with `pytest_plugins`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.amdsmi_standin import SCENARIO, Gpu, build, write
from tests.nvml_standin import compiler


@pytest.fixture(scope="session")
def rocm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ROCM_PATH names."""
    if compiler() is None:
        pytest.skip("no C compiler (cc or gcc) to build the amdsmi stand-in")
    return build(tmp_path_factory.mktemp("rocm"))


@pytest.fixture
def amd_world(
    rocm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[Gpu]], Path]:
    """Puts this process among GPUs until the test ends; another call changes them."""

    def enter(gpus: Sequence[Gpu]) -> Path:
        path = write(tmp_path / "gpus.txt", gpus)
        monkeypatch.setenv("ROCM_PATH", str(rocm))
        monkeypatch.setenv(SCENARIO, str(path))
        return path

    return enter
