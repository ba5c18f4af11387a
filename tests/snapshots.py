"""Snapshots of studies under way, for tests of what is drawn of them."""

from typing import Any

from sweeper.progress.snapshot import STATUSES, Best, Snapshot, Trouble, UnderWay


def launch(number: int, **fields: Any) -> UnderWay:
    known: dict[str, Any] = {
        "trial_id": f"{number:010x}",
        "attempt": 0,
        "node": f"node-{number % 4}",
        "gpus": 2,
        "launch": 1,
        "launches": 1,
        "phase": "window",
        "point": f"tensor_parallel=2, batch_size={number + 1}",
        "phase_s": 12.0 + number,
        "held_s": 100.0,
        "points": 10,
        "points_done": 3,
    }
    return UnderWay(**known | fields)


def snapshot(launches: int = 2, **fields: Any) -> Snapshot:
    known: dict[str, Any] = {
        "study": "tp_study",
        "asked": 28,
        "launches": 6,
        "counts": {**dict.fromkeys(STATUSES, 0), "ok": 10, "infeasible": 1, "failed": 1},
        "under_way": tuple(launch(number) for number in range(launches)),
        "leases": 4,
        "deaths": {"hang": 2, "died": 1},
        "discards": {"counter_reset": 2},
        "gpu_seconds": 11556.0,
        "energy_j": {"estimate": 20.0, "measured": 4.5e6},
        "share": 0.5,
        "left_s": 2100.0,
        "best": (best(),),
        "troubles": (trouble(),),
    }
    return Snapshot(**known | fields)


def best(condition: str = "", **fields: Any) -> Best:
    known: dict[str, Any] = {
        "condition": condition,
        "chosen": "tensor_parallel=2, batch_size=512",
        "id": "410765073684",
        "metric": "energy_per_output_token_j",
        "value": 0.0412,
        "origin": None,
    }
    return Best(**known | fields)


def trouble(**fields: Any) -> Trouble:
    known: dict[str, Any] = {
        "trial_id": "00000000ff",
        "reason": "hang: no step for 181 s, killed",
        "log": "mlruns/studies/tp_study/attachments/00000000ff-0-4f3e2a1b9c0d-0.log.gz",
    }
    return Trouble(**known | fields)
