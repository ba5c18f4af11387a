"""Facts of nodes as `Session.examine` tells them, for tests of what a doctor makes of them."""

from typing import Any

from sweeper.doctor.diagnosis import Place

PLACE = Place(
    address=None, unequal=(), unwritable=(), tracking_uri="sqlite:////home/me/mlruns/mlflow.db"
)


def gpu(index: int = 0, **changed: Any) -> dict[str, Any]:
    counter = {
        "works": True,
        "scope": "gpu",
        "period_s": 0.1,
        "duration_s": 3.0,
        "counter_j": 303.0,
        "power_j": 300.0,
        "power_method": "instant",
        "ratio": 1.01,
    }
    return {
        "uuid": f"GPU-{index:08d}-1111-2222-3333-444455556666",
        "name": "NVIDIA H100 80GB HBM3",
        "index": index,
        "vbios": "96.00.99.00.01",
        "memory_total_bytes": 85_520_809_984,
        "memory_used_bytes": 0,
        "power_limit_w": 700.0,
        "power_limit_default_w": 700.0,
        "persistence": True,
        "ecc": True,
        "ecc_uncorrected": 0,
        "mig": False,
        "temperature_c": 31.0 + index,
        "compute_pids": [],
        "offered": True,
        "counter": counter,
    } | changed


def refused(reason: str) -> dict[str, Any]:
    return {"works": False, "reason": reason, "detail": f"GPU-0 says {reason}"}


def node(host: str = "node-1", width: int = 0, **changed: Any) -> dict[str, Any]:
    """A node that lacks nothing, and what is changed of it."""
    engine = {"needs_gpu": False, "missing": [], "loads": True, "gpus": width}
    return {
        "host": host,
        "node_id": host.encode().hex().ljust(56, "0"),
        "gpu_type": "H100" if width else None,
        "offered": {"cpus": 16.0, "gpus": width},
        "platform": "Linux-6.8.0-x86_64-with-glibc2.39",
        "versions": {"python": "3.12.3", "ray": "2.60.0", "torch": "2.13.0", "vllm": "0.32.0"},
        "cpu_model": "AMD EPYC 9654",
        "cpus": 16,
        "niceness": 0,
        "memory_bytes": 128 * 2**30,
        "memory_free_bytes": 120 * 2**30,
        "open_files_limit": 65536,
        "bytecode": True,
        "hub": {
            "cache": "/data/hub",
            "writable": True,
            "free_bytes": 900e9,
            "token": True,
            "offline": [],
        },
        "nvml": {"works": True, "driver": "580.95.05"},
        "gpus": [gpu(index) for index in range(width)],
        "amd": {"present": False} | refused("amdsmi_missing"),
        "rapl": [rapl_zone("package-0")],
        "estimate": None if width else {"works": True, "cpu_model": "AMD EPYC 9654"},
        "engines": {"vllm": engine | {"needs_gpu": bool(width)}, "transformers": engine},
    } | changed


def rapl_zone(name: str, counted: bool = True, readable: bool = True) -> dict[str, Any]:
    zone = {"zone": "intel-rapl:0", "name": f"cpu {name}", "counted": counted}
    return zone | (
        {"readable": True} if readable else {"readable": False, "reason": "no_permission"}
    )


def silent(host: str = "node-9") -> dict[str, Any]:
    kept = ("host", "node_id", "gpu_type", "offered")
    whole = node(host)
    return {name: whole[name] for name in kept} | {"silence": f"{host}: no answer within 120 s"}
