"""What is known of each GPU type, each constant with its source.

Where no measurement of a type is published, its power is assumed from its TDP and from the nearest
type that has one, and its sources say so. Absent idle powers are `None`, never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.errors import StudyError

MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU type.

    `names` are what people and NVML call it, beside `name`. `link_bytes_per_s` goes to and from
    the other GPUs of a node, one way. `bf16_flops_per_s` is without sparsity. `idle_w` is bare,
    `context_idle_w` with a CUDA context. Busy power is modelled as
    `active_w + j_per_byte * bytes/s + j_per_flop * FLOP/s`, at most `tdp_w`. `sources` names the
    source of every constant.
    """

    name: str
    names: tuple[str, ...]
    memory_bytes: int
    bandwidth_bytes_per_s: float
    bf16_flops_per_s: float
    fp32_flops_per_s: float
    link_bytes_per_s: float
    tdp_w: float
    idle_w: float | None = None
    context_idle_w: float | None = None
    active_w: float
    j_per_byte: float
    j_per_flop: float
    sources: Mapping[str, str]


_MEMORY = "total memory as NVML reports it"
_PCIE4 = "PCI Express 4.0 x16, 32 GB/s each way; bridges join pairs only"
_PARKING = "arXiv 2605.23918, idle and with CUDA context"
_HBM = "Antepara et al., SC'25, doi 10.1145/3712285.3759815, A100"
_A100_ACTIVE = "arXiv 2602.05116, P_idle (active) of A100, projected by its authors"
_H100_FIT = (
    "middle of the range of fits to ML.ENERGY leaderboard v3 on H100 SXM (303-393 W, 38-80 pJ/B, "
    "0.82-0.92 pJ/FLOP; mean error 8 %)"
)
_B200_FIT = (
    "middle of the range of fits to ML.ENERGY leaderboard v3 on B200 (260-279 W, 122-130 pJ/B, "
    "0.58-0.86 pJ/FLOP; mean error 9 %)"
)
_ASSUMED_ACTIVE = "assumption: 0.44 of TDP, as on A100"
_ASSUMED_BYTE = "assumption: as HBM2e of A100; none published for GDDR6"
_ASSUMED_FLOP = "assumption: as A100's tensor cores"


def _published(
    sheet: str, link: str, *, active: str, byte: str, flop: str, **idle: str
) -> Mapping[str, str]:
    constants = ("bandwidth_bytes_per_s", "bf16_flops_per_s", "fp32_flops_per_s", "tdp_w")
    return {
        "memory_bytes": _MEMORY,
        **dict.fromkeys(constants, sheet),
        "link_bytes_per_s": link,
        "active_w": active,
        "j_per_byte": byte,
        "j_per_flop": flop,
        **idle,
    }


GPUS: tuple[Gpu, ...] = (
    Gpu(
        name="A6000",
        names=("RTX A6000",),
        memory_bytes=49140 * MIB,
        bandwidth_bytes_per_s=768e9,
        bf16_flops_per_s=154.8e12,
        fp32_flops_per_s=38.7e12,
        link_bytes_per_s=32e9,
        tdp_w=300.0,
        active_w=132.0,
        j_per_byte=105e-12,
        j_per_flop=0.70e-12,
        sources=_published(
            "NVIDIA RTX A6000 datasheet (309.7 tensor TFLOPS with sparsity)",
            _PCIE4,
            active=_ASSUMED_ACTIVE,
            byte=_ASSUMED_BYTE,
            flop=_ASSUMED_FLOP,
        ),
    ),
    Gpu(
        name="6000 Ada",
        names=("RTX 6000 Ada Generation", "RTX 6000 Ada", "A6000 Ada", "6000Ada"),
        memory_bytes=49140 * MIB,
        bandwidth_bytes_per_s=960e9,
        bf16_flops_per_s=364.2e12,
        fp32_flops_per_s=91.1e12,
        link_bytes_per_s=32e9,
        tdp_w=300.0,
        active_w=132.0,
        j_per_byte=105e-12,
        j_per_flop=0.70e-12,
        sources=_published(
            "NVIDIA RTX 6000 Ada Generation datasheet (1457 FP8 TFLOPS with sparsity, a quarter)",
            _PCIE4,
            active=_ASSUMED_ACTIVE,
            byte=_ASSUMED_BYTE,
            flop=_ASSUMED_FLOP,
        ),
    ),
    Gpu(
        name="A100 PCIe",
        names=("A100 80GB PCIe", "A100-PCIe-80GB", "A100 PCIe 80GB"),
        memory_bytes=81920 * MIB,
        bandwidth_bytes_per_s=1935e9,
        bf16_flops_per_s=312e12,
        fp32_flops_per_s=19.5e12,
        link_bytes_per_s=32e9,
        tdp_w=300.0,
        idle_w=53.7,
        context_idle_w=80.0,
        active_w=175.0,
        j_per_byte=105e-12,
        j_per_flop=0.70e-12,
        sources=_published(
            "NVIDIA A100 80GB PCIe datasheet",
            _PCIE4,
            active=_A100_ACTIVE,
            byte=_HBM,
            flop=_HBM,
            idle_w=f"{_PARKING}, of an A100",
            context_idle_w=f"{_PARKING}, of an A100",
        ),
    ),
    Gpu(
        name="A100 SXM",
        names=("A100", "A100-SXM4-80GB", "A100 SXM 80GB", "A100-80G", "A100 80GB"),
        memory_bytes=81920 * MIB,
        bandwidth_bytes_per_s=2039e9,
        bf16_flops_per_s=312e12,
        fp32_flops_per_s=19.5e12,
        link_bytes_per_s=300e9,
        tdp_w=400.0,
        idle_w=53.7,
        context_idle_w=80.0,
        active_w=175.0,
        j_per_byte=105e-12,
        j_per_flop=0.70e-12,
        sources=_published(
            "NVIDIA A100 datasheet, SXM4 80 GB",
            "NVLink 3, 600 GB/s both ways (NVIDIA A100 datasheet)",
            active=_A100_ACTIVE,
            byte=_HBM,
            flop=_HBM,
            idle_w=f"{_PARKING}, of an A100",
            context_idle_w=f"{_PARKING}, of an A100",
        ),
    ),
    Gpu(
        name="H100",
        names=("H100 80GB HBM3", "H100 SXM", "H100 SXM5"),
        memory_bytes=81559 * MIB,
        bandwidth_bytes_per_s=3350e9,
        bf16_flops_per_s=989e12,
        fp32_flops_per_s=67e12,
        link_bytes_per_s=450e9,
        tdp_w=700.0,
        idle_w=71.8,
        context_idle_w=121.7,
        active_w=350.0,
        j_per_byte=60e-12,
        j_per_flop=0.87e-12,
        sources=_published(
            "NVIDIA H100 datasheet, SXM5",
            "NVLink 4, 900 GB/s both ways (NVIDIA H100 datasheet)",
            active=_H100_FIT,
            byte=_H100_FIT,
            flop=_H100_FIT,
            idle_w=f"{_PARKING}, of an H100",
            context_idle_w=f"{_PARKING}, of an H100",
        ),
    ),
    Gpu(
        name="H200",
        names=("H200 SXM", "H200 141GB"),
        memory_bytes=143771 * MIB,
        bandwidth_bytes_per_s=4800e9,
        bf16_flops_per_s=989e12,
        fp32_flops_per_s=67e12,
        link_bytes_per_s=450e9,
        tdp_w=700.0,
        context_idle_w=126.0,
        active_w=350.0,
        j_per_byte=60e-12,
        j_per_flop=0.87e-12,
        sources=_published(
            "NVIDIA H200 datasheet, SXM",
            "NVLink 4, 900 GB/s both ways (NVIDIA H200 datasheet)",
            active=f"assumption: as H100, the same chip; {_H100_FIT}",
            byte=f"assumption: as H100; {_H100_FIT}",
            flop=f"assumption: as H100, the same chip; {_H100_FIT}",
            context_idle_w="lowest H200 reading in ai-dynamo/aiconfigurator's power tables",
        ),
    ),
    Gpu(
        name="B200",
        names=("B200 SXM", "B200 180GB"),
        memory_bytes=183359 * MIB,
        bandwidth_bytes_per_s=8000e9,
        bf16_flops_per_s=2250e12,
        fp32_flops_per_s=80e12,
        link_bytes_per_s=900e9,
        tdp_w=1000.0,
        active_w=270.0,
        j_per_byte=126e-12,
        j_per_flop=0.72e-12,
        sources=_published(
            "NVIDIA Blackwell architecture brief, HGX B200",
            "NVLink 5, 1800 GB/s both ways (NVIDIA HGX B200 datasheet)",
            active=_B200_FIT,
            byte=_B200_FIT,
            flop=_B200_FIT,
        ),
    ),
)


def _plain(name: str) -> str:
    letters = "".join(letter for letter in name.lower() if letter.isalnum())
    return letters.removeprefix("nvidia")


_BY_NAME = {_plain(name): each for each in GPUS for name in (each.name, *each.names)}


def gpu(name: str) -> Gpu:
    """The GPU type that people or NVML call `name`; case, spaces and dashes do not matter.

    Raises:
        StudyError: nothing is known of it. A processor without a GPU has no roofline either.
    """
    found = _BY_NAME.get(_plain(name))
    if found is None:
        known = ", ".join(each.name for each in GPUS)
        raise StudyError(f"GPU type {name!r}: nothing known of it; known: {known}")
    return found
