"""One point's receipt: what happened, when, and the arithmetic from readings to each number."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.answers.evidence import device_lines, reason_lines
from sweeper.answers.table import plain
from sweeper.answers.units import quantity
from sweeper.errors import StudyError
from sweeper.results.metrics import METRICS, SD_WINDOWS
from sweeper.results.record import Record, Window


def receipt(records: Iterable[Record], id: str) -> str:  # noqa: A002
    """The receipts of all records of the point whose id begins with `id`, as text.

    Raises:
        StudyError: no point, or more than one, has an id that begins so.
    """
    known = list(records)
    ids = sorted({record.id for record in known})
    found = [id] if id in ids else [each for each in ids if each.startswith(id)]
    if not id or not found:
        some = ", ".join(ids[:5]) or "none yet"
        raise StudyError(f"show: no record has an id that begins with {id!r}; there are {some}")
    if len(found) > 1:
        raise StudyError(f"show: {id!r} is the beginning of {', '.join(found)}; write more of it")
    chosen = [record for record in known if record.id == found[0]]
    return "\n\n".join("\n".join(_receipt(record)) for record in chosen) + "\n"


def _receipt(record: Record) -> list[str]:
    reason = f": {record.reason}" if record.reason else ""
    lines = [
        f"{record.id}  launch {record.launch}, stage {record.stage}, attempt {record.attempt}",
        f"  {record.status}{reason}",
        f"  study {record.study}, trial {record.trial_id}, configuration {record.configuration}",
        *_pairs("condition", record.condition),
        *_pairs("chosen", record.chosen),
        *_timeline(record),
        *_energy(record),
        *_numbers(record),
        *_checks(record),
        *_pairs("environment", record.environment),
        *_pairs("config", record.config),
    ]
    if record.launch_command:
        command = record.launch_command.strip().splitlines()
        # A script is not indented, so that it can be copied from here.
        lines += ["", f"  $ {command[0]}"] if len(command) == 1 else ["", "launch script", *command]
    return lines


def _timeline(record: Record) -> list[str]:
    lines = ["", "timeline (seconds on the launch's clock)", f"  {record.started_at}  started"]
    if record.load_s is not None:
        lines.append(f"  engine loaded in {record.load_s:.3f} s")
    for window in record.windows:
        lines += _window(window)
    lines.append(f"  {record.ended_at}  ended")
    return lines


def _window(window: Window) -> list[str]:
    failed = f", {window.requests_failed} failed" if window.requests_failed else ""
    lines = [
        (
            f"  window {window.index}, {window.convention}: {window.started_s:.3f} to "
            f"{window.ended_s:.3f}, {window.duration_s:.3f} s"
        ),
        (
            f"    {window.requests} requests finished{failed}; {window.input_tokens} tokens in, "
            f"{window.output_tokens} out"
        ),
    ]
    lines += _readings(window.readings)
    lines += [f"      {line}" for line in device_lines(window.evidence)]
    if window.energy_j is None:
        return [*lines, *(f"    {line}" for line in reason_lines(window.reasons))]
    energy = f"    energy {window.energy_j:.3f} J"
    if window.output_tokens:
        each = window.energy_j / window.output_tokens
        energy += f" / {window.output_tokens} tokens out = {each:.6f} J/token"
    return [*lines, energy]


def _readings(readings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counters of every device at both edges, and their difference."""
    if len(readings) < 2:
        return [f"    only {len(readings)} of 2 readings"]
    opening, closing = readings[0], readings[-1]
    lines = [f"    read at {opening['t_s']:.3f} and {closing['t_s']:.3f}"]
    for device, before in opening["energy_j"].items():
        after = closing["energy_j"].get(device)
        if after is None:
            lines.append(f"      {device}: {before:.3f} J, then nothing")
        else:
            spent = after - before
            lines.append(f"      {device}: {after:.3f} - {before:.3f} = {spent:.3f} J")
    return lines


def _energy(record: Record) -> list[str]:
    """What the joules are, and how energy per token comes from the windows that have them."""
    energy = record.energy
    if energy is None:
        return ["", "energy: none"]
    kind = "measured" if energy.measured else "NOT MEASURED"
    lines = ["", f"energy: {kind}, {energy.source} ({energy.method}) of the {energy.scope}"]
    if energy.systematic:
        lines.append(f"  gain error of the meter ±{100 * energy.systematic:g} %, in no interval")
    metered = [window for window in record.windows if window.energy_j is not None]
    joules = math.fsum(window.energy_j or 0.0 for window in metered)
    tokens = sum(window.output_tokens for window in metered)
    if metered and tokens:
        of = f"{len(metered)} of {len(record.windows)} windows"
        lines.append(
            f"  {joules:.3f} J / {tokens} tokens out = {joules / tokens:.6f} J/token, over {of}"
        )
    return lines


def _numbers(record: Record) -> list[str]:
    if not record.metrics:
        return ["", "numbers: none"]
    lines = ["", "numbers (sd: over the windows of this launch; ?: too few samples)"]
    plain_names = [name for name in record.metrics if not name.endswith(SD_WINDOWS)]
    width = max(len(name) for name in plain_names or [""])
    for name in sorted(plain_names, key=_rank):
        mark = "?" if name in record.undersampled else ""
        deviation = record.metrics.get(name + SD_WINDOWS)
        spread = f"  sd {quantity(deviation, name)}" if deviation is not None else ""
        value = record.metrics[name]
        lines.append(f"  {name:<{width}}  {value:<12.6g}  {quantity(value, name)}{mark}{spread}")
    return lines


def _rank(name: str) -> tuple[int, str]:
    names = list(METRICS)
    return (names.index(name) if name in METRICS else len(names), name)


def _checks(record: Record) -> list[str]:
    if not record.checks:
        return []
    lines = [
        f"  {'ok  ' if check.ok else 'FAIL'}  {check.name}"
        + (f": {check.detail}" if check.detail else "")
        for check in record.checks
    ]
    return ["", "checks", *lines]


def _pairs(title: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    width = max(len(key) for key in values)
    return [
        "",
        title,
        *(f"  {key:<{width}}  {_text(value)}" for key, value in sorted(values.items())),
    ]


def _text(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return plain(value)
