"""Whether a finished study is sound, judged from its journal alone, by code of its own.

Nothing of the package is used: lines in, faults out. Fronts and the best are found by brute force.
"""

import json
import math
import statistics
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
    return [*_leases(lines, nodes), *_windows(lines), *lasting_faults(lines)]


def lasting_faults(lines: Sequence[Line]) -> list[str]:
    """What is wrong also where drivers were killed, whose leases have no end."""
    return [*_verdicts(lines), *_blocks(lines)]


def _verdicts(lines: Iterable[Line]) -> Iterable[str]:
    for key, count in Counter(map(_key, _standing(lines))).items():
        if count != 1:
            yield f"{key} has {count} accepted records"


def _standing(lines: Iterable[Line]) -> list[Line]:
    """Verdicts that were not taken back."""
    found: list[Line] = []
    for line in lines:
        if line["kind"] == "record" and line["status"] in ACCEPTED:
            found.append(line)
        elif line["kind"] == "superseded":
            taken = (*_key(line), line["attempt"])
            found = [each for each in found if (*_key(each), each["attempt"]) != taken]
    return found


def _key(line: Line) -> tuple[str, int, str]:
    return line["id"], line["launch"], line["stage"]


def _lease(line: Line) -> tuple[str, int]:
    return line["trial_id"], line["attempt"]


def _blocks(lines: Sequence[Line]) -> Iterable[str]:
    """Blocks compare the same points each, one launch after the other, on the same GPUs."""
    final = [line for line in lines if line.get("stage") == "final"]
    held = {_lease(line): line["devices"] for line in final if line["kind"] == "trial"}
    records = [line for line in _standing(final) if line["status"] == "ok"]
    compared: dict[str, dict[int, set[str]]] = {}
    leases: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for record in records:
        condition = json.dumps([record["condition"], record["convention"]])
        compared.setdefault(condition, {}).setdefault(record["launch"], set()).add(record["id"])
        leases.setdefault((condition, record["launch"]), set()).add(_lease(record))
        for window in record["windows"]:
            for reading in window["readings"]:
                used = list(reading["energy_j"])
                if sorted(used) != sorted(held[_lease(record)][: record["gpus"]]):
                    yield f"{_key(record)} ran on {used}, not on the first of its block's GPUs"
    for condition, blocks in compared.items():
        if len({frozenset(ids) for ids in blocks.values()}) != 1:
            yield f"the blocks of {condition} compare different points: {blocks}"
    for block, of in leases.items():
        if len(of) != 1:
            yield f"block {block} is of several leases: {of}"
    for lease, each in _sequences(final).items():
        runs = [one for one, before in zip(each, [None, *each], strict=False) if one != before]
        if len(runs) != len(set(runs)):
            yield f"launches of {lease} overlap: {runs}"


def _sequences(lines: Sequence[Line]) -> dict[tuple[str, int], list[str]]:
    """The configurations of each lease's windows and records, in the order of the journal."""
    of = {line["id"]: line["configuration"] for line in lines if line["kind"] == "record"}
    found: dict[tuple[str, int], list[str]] = {}
    for line in lines:
        if line["kind"] in ("window", "record") and line["id"] in of:
            found.setdefault(_lease(line), []).append(of[line["id"]])
    return found


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
            room = len(devices[line["trial_id"]])
            if line["gpus"] > room or (line["gpus"] < room and line["stage"] != "final"):
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


STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
"""The 97.5 % quantiles of Student's t by how many values there are."""


def answer(
    lines: Iterable[Line],
    condition: Mapping[str, Any],
    objectives: Mapping[str, str],
    limits: Mapping[str, float],
) -> tuple[set[str], str | None]:
    """The ids on the front of a condition, and the best of what has been launched last."""
    rows = []
    for name, records in _pooled(lines, condition).items():
        if not all(key in record["metrics"] for record in records for key in objectives):
            continue
        extents = {
            key: _extent([record["metrics"][key] for record in records])
            for key in (*objectives, *limits)
            if all(key in record["metrics"] for record in records)
        }
        costs = [extents[key][1] * (1 if way == "min" else -1) for key, way in objectives.items()]
        met = all(
            key in extents
            and extents[key][2] <= most
            and not any(key in record["undersampled"] for record in records)
            for key, most in limits.items()
        )
        rows.append((name, costs, met, records[0]["gpus"], extents[next(iter(objectives))]))
    front = {
        name
        for name, costs, *_ in rows
        if not any(
            all(a <= b for a, b in zip(other, costs, strict=True)) and other != costs
            for _, other, *_ in rows
        )
    }
    meeting = sorted(
        (costs[0], gpus, name, extent) for name, costs, met, gpus, extent in rows if met
    )
    if not meeting:
        return front, None
    # Minimised: ties are those whose interval reaches down to that of the least.
    tied = [each for each in meeting if each[3][0] <= meeting[0][3][2]]
    return front, min(tied, key=lambda each: each[1])[2]


def _pooled(lines: Iterable[Line], condition: Mapping[str, Any]) -> dict[str, list[Line]]:
    """The records of each point that count: those of its blocks, where there are any."""
    found: dict[str, list[Line]] = {}
    for record in _standing(lines):
        if record["status"] == "ok" and record["condition"] == condition:
            found.setdefault(record["id"], []).append(record)
    return {
        name: [each for each in records if each["stage"] == "final"] or records
        for name, records in found.items()
    }


def _extent(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower end of an interval, the mean, the upper end."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, mean, mean
    half = STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean, mean + half
