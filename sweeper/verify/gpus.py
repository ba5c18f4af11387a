"""Whether the GPUs of a record were set as its settings ask, by what the boards told."""

from collections.abc import Mapping
from typing import Any

from sweeper.verify.sources import Line
from sweeper.verify.tally import Tally

SAME_W = 1.0
STEP_MHZ = 15.0
SIMULATED = "simulated"


def check(record: Line, where: str, tally: Tally) -> None:
    """Hold what is asked against what was found in force, at once and at the edges of windows."""
    config, energy = record["config"], record["energy"]
    asked = {
        name: config[f"gpu.{name}"]
        for name in ("power_limit_w", "clock_mhz")
        if config.get(f"gpu.{name}") is not None
    }
    told = record["environment"].get("gpu_settings")
    if not asked and told is None:
        return
    measured = record["status"] in ("ok", "energy_invalid")
    if not measured or (energy or {}).get("source") == SIMULATED:
        return
    if told is None:
        tally.differ(where, "its settings ask for a setting of GPUs, and it tells of none")
        return
    tally.equal("gpu settings", where, "gpu settings asked", told["asked"], asked)
    gpus = sorted(gpu["uuid"] for gpu in record["environment"]["devices"].get("gpus", ()))
    for part in ("found", "in_force"):
        tally.equal("gpu settings", where, f"GPUs {part}", sorted(told[part]), gpus)
    for device, force in told["in_force"].items():
        _board(asked, force, f"{where}, {device}", tally)
    for window in record["windows"]:
        for edge in ("before", "after"):
            glance = window["evidence"].get(edge)
            for device, state in (glance or {"devices": {}})["devices"].items():
                place = f"{where}, window {window['index']}, {edge} it, {device}"
                _board(asked, state, place, tally)


def _board(asked: Line, state: Mapping[str, Any], where: str, tally: Tally) -> None:
    watts, mhz = state.get("power_limit_w"), state.get("sm_clock_mhz")
    if "power_limit_w" in asked and watts is not None:
        tally.compared["gpu settings"] += 1
        if abs(watts - asked["power_limit_w"]) > SAME_W:
            tally.differ(where, f"a power limit of {watts:g} W, {asked['power_limit_w']:g} asked")
    if "clock_mhz" in asked and mhz is not None:
        tally.compared["gpu settings"] += 1
        if mhz > asked["clock_mhz"] + STEP_MHZ:
            tally.differ(where, f"clocks at {mhz:g} MHz, {asked['clock_mhz']} asked")
