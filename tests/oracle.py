"""Whether a finished study is sound, judged from its journal alone, by code of its own.

Nothing of the package is used: lines in, faults out. Fronts and the best are found by brute force.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
ACCEPTED = {"ok", "energy_invalid", "wrong_setting", "infeasible"}


def journal_of(folder: Path) -> list[Line]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def faults(lines: Sequence[Line], nodes: Mapping[str, str]) -> list[str]:
    """What is wrong with leases and verdicts; `nodes` names the node of each device."""
    return [*_verdicts(lines), *_leases(lines, nodes), *_windows(lines)]


def _verdicts(lines: Iterable[Line]) -> Iterable[str]:
    counts = Counter(
        (line["id"], line["launch"], line["stage"])
        for line in lines
        if line["kind"] == "record" and line["status"] in ACCEPTED
    )
    for key, count in counts.items():
        if count != 1:
            yield f"{key} has {count} accepted records"


def _leases(lines: Iterable[Line], nodes: Mapping[str, str]) -> Iterable[str]:
    held: dict[str, str] = {}
    devices: dict[str, list[str]] = {}
    for line in lines:
        if line["kind"] == "trial":
            mine = devices[line["trial_id"]] = line["devices"]
            if len({nodes[device] for device in mine}) != 1:
                yield f"{line['trial_id']} spans nodes: {mine}"
            for device in mine:
                if device in held:
                    yield f"{device} is held by {held[device]} and {line['trial_id']}"
                held[device] = line["trial_id"]
        elif line["kind"] == "ended":
            held = {device: by for device, by in held.items() if by != line["trial_id"]}
        elif line["kind"] == "record" and line["status"] != "failed":
            if line["gpus"] != len(devices[line["trial_id"]]):
                yield f"{line['id']} says {line['gpus']} GPUs, its lease has another number"
            asked = line["config"]["engine.tensor_parallel"]
            asked *= line["config"]["engine.pipeline_parallel"]
            if line["gpus"] != asked * line["config"]["engine.data_parallel"]:
                yield f"{line['id']} was measured on {line['gpus']} GPUs"
    if held:
        yield f"never given back: {sorted(held)}"


def _windows(lines: Iterable[Line]) -> Iterable[str]:
    for line in lines:
        if line["kind"] != "record" or line["status"] != "ok":
            continue
        joules = tokens = 0.0
        for window in line["windows"]:
            if window["energy_j"] is None:
                continue
            opening, closing = (reading["energy_j"] for reading in window["readings"])
            spent = sum(closing.values()) - sum(opening.values())
            if not math.isclose(spent, window["energy_j"], rel_tol=1e-9):
                yield f"{line['id']}: a window of {spent} J says {window['energy_j']}"
            joules, tokens = joules + spent, tokens + window["output_tokens"]
        said = line["metrics"]["energy_per_output_token_j"]
        if not math.isclose(joules / tokens, said, rel_tol=1e-9):
            yield f"{line['id']}: {joules / tokens} J per token, the record says {said}"


def answer(
    lines: Iterable[Line],
    condition: Mapping[str, Any],
    objectives: Mapping[str, str],
    limits: Mapping[str, float],
) -> tuple[set[str], str | None]:
    """The ids on the front of a condition, and the best of one launch each, by value."""
    rows = []
    for line in lines:
        if line["kind"] != "record" or line["status"] != "ok" or line["condition"] != condition:
            continue
        metrics = line["metrics"]
        if all(name in metrics for name in objectives):
            costs = [
                metrics[name] * (1 if way == "min" else -1) for name, way in objectives.items()
            ]
            met = all(
                name in metrics and metrics[name] <= most and name not in line["undersampled"]
                for name, most in limits.items()
            )
            rows.append((line["id"], costs, met, line["gpus"]))
    front = {
        name
        for name, costs, _, _ in rows
        if not any(
            all(a <= b for a, b in zip(other, costs, strict=True)) and other != costs
            for _, other, _, _ in rows
        )
    }
    meeting = [(costs[0], gpus, name) for name, costs, met, gpus in rows if met]
    return front, min(meeting)[2] if meeting else None
