"""Fixtures over the NVML stand-in; a test module asks for them with `pytest_plugins`."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boards import World
from tests.nvml_standin import Gpu, Scenario, build, compiler, environment, preload
from tests.nvml_standin.virtual import VirtualTime, VirtualWorld


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled stand-in."""
    if compiler() is None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail("no C compiler (cc or gcc): CI must build the NVML stand-in")
        pytest.skip("no C compiler (cc or gcc) to build the NVML stand-in")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml_world(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Scenario], Scenario]:
    """Puts this process, and those it starts, into a scenario until the test ends."""

    def enter(scenario: Scenario) -> Scenario:
        path = scenario.write(tmp_path / "scenario.txt")
        for name, value in environment(nvml_library, path, os.environ).items():
            monkeypatch.setenv(name, value)
        preload(nvml_library)
        return scenario

    return enter


@pytest.fixture
def virtual_world(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., VirtualWorld]:
    """`virtual_world(*gpus, **clock)`: puts this process into a world of virtual time.

    The scenario begins now, on that clock. Each call begins another world, for whoever opens NVML
    from then on; `clock` are arguments of `VirtualTime`.
    """
    preload(nvml_library)

    def enter(*gpus: Gpu, **clock: Any) -> VirtualWorld:
        time = VirtualTime(tmp_path / "clock", **clock)
        scenario = Scenario(gpus=gpus, start_s=time.now())
        path = scenario.write(tmp_path / "scenario.txt")
        for name, value in environment(nvml_library, path, os.environ, time.path).items():
            monkeypatch.setenv(name, value)
        return VirtualWorld(scenario, time)

    return enter


@pytest.fixture
def gpu_world(nvml_world: Callable[[Scenario], Scenario], tmp_path: Path) -> Callable[..., World]:
    """`gpu_world({..}, ..)`: GPUs whose settings are looked at, by what is special of each."""

    def enter(*more: dict[str, Any]) -> World:
        gpus = tuple(
            Gpu(uuid=f"GPU-{secrets.token_hex(6)}", pci=f"00000000:{place + 1:02X}:00.0", **each)
            for place, each in enumerate(more)
        )
        nvml_world(Scenario(gpus=gpus))
        return World(tmp_path / "scenario.txt", gpus)

    return enter


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are put here do not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()
