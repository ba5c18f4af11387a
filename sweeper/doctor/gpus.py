"""The GPUs of a node: which counters work, and what stands against measuring by them (pure)."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.doctor.finding import Facts, Finding, by_gpu

LEAVE_OUT = "until then leave it out of the CUDA_VISIBLE_DEVICES that Ray is started with"
COUNTER_WAYS: Mapping[str, str] = {
    "mig": (
        "sudo nvidia-smi -i {gpus} -mig 0, then start Ray there anew: energy is told of whole GPUs "
        f"only; {LEAVE_OUT}"
    ),
    "gpu_lost": f"sudo nvidia-smi -i {{gpus}} --gpu-reset, or reboot; {LEAVE_OUT}",
    "not_supported": (
        "use whole GPUs of Volta or later, whose counter NVML tells (a vGPU has none), or a newer "
        f"driver; {LEAVE_OUT}"
    ),
    "no_permission": (
        "let this user read it: in a container, with the GPU's device files and "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    ),
    "counter_stuck": f"sudo nvidia-smi -i {{gpus}} --gpu-reset, or a newer driver; {LEAVE_OUT}",
    "counter_reset": (
        "somebody reset the GPU meanwhile: see who does, and type the same command again"
    ),
}
"""The way out for each reason code of a counter."""
OTHER_WAY = "see nvidia-smi -i {gpus} -q, and dmesg for lines with Xid"
NVML_WAYS: Mapping[str, str] = {
    "nvml_missing": (
        "install NVIDIA's driver, with libnvidia-ml.so.1 where the loader finds it (in a container "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
    ),
    "driver_not_loaded": "load the driver: sudo modprobe nvidia, and see dmesg if it refuses",
    "driver_mismatch": "reboot: the driver was updated, and its old module is still loaded",
}
"""The way out for each reason code of NVML as a whole."""
NVML_OTHER_WAY = "see whether nvidia-smi works there, and what it says"
AGREEMENT = 0.05
"""Counter and power of one sensor differ by less on a steady GPU; Zeus's issue 181 and Kokkos
tools' issue 295 tell of more."""


def offered(facts: Facts) -> list[Facts]:
    """The GPUs that Ray hands out and NVML knows."""
    return [gpu for gpu in facts["gpus"] if gpu["offered"]]


def measured(facts: Facts) -> int:
    """How many of them have a counter that works."""
    return sum(gpu["counter"]["works"] for gpu in offered(facts))


def gpu_findings(facts: Facts) -> Iterator[Finding]:
    """Of NVML as a whole, then of the GPUs."""
    wanted, found = facts["offered"]["gpus"], offered(facts)
    nvml = facts["nvml"]
    if wanted and not nvml["works"] and facts["amd"].get("counters", 0) >= wanted:
        yield Finding(
            kind="advice",
            what="its GPUs are AMD's, which meter: auto does not take",
            way_out="set meter: amd in each study",
        )
    elif wanted and not nvml["works"]:
        yield Finding(
            kind="fault",
            what=f"Ray hands out {wanted} GPUs, but NVML says {nvml['reason']}: {nvml['detail']}",
            way_out=nvml_way(facts),
        )
    elif len(found) < wanted:
        yield Finding(
            kind="fault",
            what=f"Ray hands out {wanted} GPUs, of which NVML knows {len(found)}",
            way_out=(
                "start Ray there anew with --num-gpus and CUDA_VISIBLE_DEVICES as nvidia-smi -L "
                "lists them"
            ),
        )
    elif hidden := len(facts["gpus"]) - len(found):
        yield Finding(
            kind="advice" if wanted else "missing",
            what=f"Ray does not hand out {hidden} of {len(facts['gpus'])} GPUs",
            way_out=(
                "if they are meant for studies, start Ray there anew with "
                f"--num-gpus={len(facts['gpus'])} and no CUDA_VISIBLE_DEVICES"
            ),
        )
    yield from by_gpu([(gpu["index"], list(_of_gpu(gpu))) for gpu in found])


def nvml_way(facts: Facts) -> str:
    """How to get NVML where it does not work."""
    return NVML_WAYS.get(facts["nvml"].get("reason", ""), NVML_OTHER_WAY)


def _of_gpu(gpu: Facts) -> Iterator[Finding]:
    yield from _of_counter(gpu["counter"])
    if gpu.get("compute_pids"):
        yield Finding(
            kind="advice",
            what=f"computed on by process {', '.join(map(str, gpu['compute_pids']))}",
            way_out="end it, or wait for it: a launch starts on a free GPU only",
        )
    if gpu.get("persistence") is False:
        yield Finding(
            kind="advice",
            what="persistence mode is off: idle, it forgets its settings and its counter",
            way_out="sudo nvidia-smi -i {gpus} -pm 1, or run nvidia-persistenced",
        )
    yield from _of_limit(gpu)
    if gpu.get("ecc") is False:
        yield Finding(
            kind="advice",
            what="ECC is off, which changes memory and its bandwidth",
            way_out="sudo nvidia-smi -i {gpus} -e 1 and reboot, unless it is meant to be off",
        )
    if gpu.get("ecc_uncorrected"):
        yield Finding(
            kind="advice",
            what="it had memory errors that ECC could not correct",
            way_out="sudo nvidia-smi -i {gpus} --gpu-reset; where they come back, replace it",
        )


def _of_counter(counter: Mapping[str, Any]) -> Iterator[Finding]:
    if not counter["works"]:
        reason = counter["reason"]
        yield Finding(
            kind="fault",
            what=f"no energy: {reason}",
            way_out=COUNTER_WAYS.get(reason, OTHER_WAY),
        )
    elif abs(counter.get("ratio", 1.0) - 1) > AGREEMENT:
        more = "more" if counter["ratio"] > 1 else "less"
        yield Finding(
            kind="advice",
            what=f"its counter went up by over {AGREEMENT:.0%} {more} than its power integrates to",
            way_out=(
                "type the same command while it works steadily; if that stays so, compare joules "
                "only with those of the same board"
            ),
        )


def _of_limit(gpu: Facts) -> Iterator[Finding]:
    limit_w, default_w = gpu.get("power_limit_w"), gpu.get("power_limit_default_w")
    if limit_w is not None and default_w is not None and limit_w != default_w:
        yield Finding(
            kind="advice",
            what=f"its power is limited to {limit_w:g} W, by default it is {default_w:g} W",
            way_out=(
                f"sudo nvidia-smi -i {{gpus}} -pl {default_w:g}, unless that limit is what you "
                "want to measure"
            ),
        )
