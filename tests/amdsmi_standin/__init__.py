"""The amdsmi stand-in: a small libamd_smi.so under the real amdsmi package.

The package binds every function of its library when it is imported; those that `amdsmi.c` does not
have are made to answer NOT_SUPPORTED, by the names that the installed package asks for.
"""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.nvml_standin import compiler

PACKAGE = Path(__file__).resolve().parents[2] / ".venv" / "opt" / "amdsmi"
"""Where `make setup` puts the package: with it on the path of everything else, CodeCarbon and torch
would import it too."""
LIBRARY = "libamd_smi.so"
SCENARIO = "SWEEPER_AMDSMI_SCENARIO"
NOT_SUPPORTED, NO_PERMISSION, TIMEOUT = 2, 10, 8


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU of constant power.

    Its counter ticks every `period_s` and runs `scale` times too fast; `told_w` is the power that
    it tells, its own if `None`. `energy` and `power` are what those calls answer, 0 is success.
    """

    hip_id: int
    uuid: str
    watts: float = 400.0
    period_s: float = 0.001
    scale: float = 1.0
    told_w: float | None = None
    celsius: float = 52.0
    energy: int = 0
    power: int = 0
    pids: tuple[int, ...] = ()

    @property
    def hip_uuid(self) -> str:
        return f"GPU-{self.uuid[:8]}"

    def line(self) -> str:
        told_w = self.watts if self.told_w is None else self.told_w
        words = [self.hip_id, self.uuid, self.hip_uuid, f"0x{self.hip_id + 0xABC:X}", self.watts]
        words += [self.period_s, self.scale, told_w, self.celsius, self.energy, self.power]
        return " ".join(map(str, [*words, *self.pids]))

    def joules(self, from_s: float, until_s: float) -> float:
        return self.watts * (until_s - from_s)


def write(path: Path, gpus: Sequence[Gpu]) -> Path:
    path.write_text("".join(f"{gpu.line()}\n" for gpu in gpus))
    return path


def build(folder: Path) -> Path:
    """Compile the library as ROCm has it, `lib/` below the folder that is returned.

    Raises:
        FileNotFoundError: there is no C compiler, or no amdsmi package.
    """
    command = compiler()
    if command is None:
        raise FileNotFoundError("no C compiler (cc or gcc)")
    here = Path(__file__).parent
    wrapper = (PACKAGE / "amdsmi" / "amdsmi_wrapper.py").read_text()
    asked = set(re.findall(r"_libraries\['libamd_smi\.so'\]\.(\w+)", wrapper))
    source = (here / "amdsmi.c").read_text()
    lacking = sorted(asked - set(re.findall(r"^status (\w+)\(", source, re.MULTILINE)))
    stubs = folder / "stubs.c"
    stubs.write_text("".join(f"unsigned {name}(void) {{ return 2; }}\n" for name in lacking))
    (folder / "lib").mkdir()
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    into = ["-o", str(folder / "lib" / LIBRARY)]
    subprocess.run([command, *flags, *into, str(here / "amdsmi.c"), str(stubs), "-lm"], check=True)
    return folder
