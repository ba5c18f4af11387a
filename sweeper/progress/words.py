"""How a study's progress is put in words: counts, spent joules, durations, records (pure)."""

from collections.abc import Iterable, Mapping, Sequence

from sweeper.answers.table import brief
from sweeper.answers.units import digits, quantity
from sweeper.progress.snapshot import Best, Snapshot, UnderWay
from sweeper.results.metrics import is_energy
from sweeper.results.record import Energy, Record

SHOWN = ("energy_per_output_token_j", "latency_mean_s", "output_tokens_per_s")
LONGEST_REASON = 200
ALWAYS = ("failed", "infeasible")
"""Verdicts that are counted aloud also where there is none."""
UNKNOWN_ORIGIN = "unknown origin"


def beginning(now: Snapshot, points: int) -> str:
    """What there is to do of a study of so many points."""
    if now.more:
        limit = f", within {now.budget}" if now.budget else ""
        have = f"; {now.before} measured before" if now.before else ""
        return f"{now.study}: a search among {many(points, 'point')}{limit}{have}{after(now)}"
    have = f", {now.before} measured before" if now.before else ""
    return (
        f"{now.study}: {many(points, 'point')}{have}; {now.asked} to measure in "
        f"{many(now.launches, 'launch', 'launches')}{after(now)}"
    )


def after(now: Snapshot) -> str:
    """What comes after what there is to do, if anything."""
    return f"; then {now.then}" if now.then else ""


def verdict(record: Record) -> str:
    """A point and what came of it."""
    return f"{moved(record)}: {_numbers(record)}"


def moved(record: Record) -> str:
    """The keys that the study moved, as this record has them."""
    return brief({**record.condition, **record.chosen}) or "the point"


def summary(now: Snapshot, best: Best | None) -> str:
    """A study so far in a line; `best` is the one to name."""
    parts = [f"{done(now)}, {', '.join(counts(now))}", spent(now)]
    if left := time_left(now):
        parts.append(left)
    if best is not None:
        parts.append(f"best so far {recommendation(best)}")
    return "; ".join(parts)


def done(now: Snapshot) -> str:
    """How much is done, of how much where the end is known."""
    if now.more:
        return f"{now.done} done, {len(now.under_way)} under way"
    return f"{now.done} of {now.asked} done"


def counts(now: Snapshot) -> list[str]:
    """Verdicts by status, but for those that went well."""
    return [
        f"{count} {status}"
        for status in sorted(now.counts, key=lambda name: (name not in ALWAYS, name))
        if status != "ok" and ((count := now.counts[status]) or status in ALWAYS)
    ]


def spent(now: Snapshot) -> str:
    """GPU-hours, and joules with what they are."""
    but = f" without {many(now.unended, 'lease')} of unknown end" if now.unended else ""
    return ", ".join([f"{now.gpu_seconds / 3600:.2f} GPU-hours{but}", *_joules(now.energy_j)])


def time_left(now: Snapshot) -> str:
    """How long it will still take, where that is known; else nothing."""
    return "" if now.left_s is None else f"about {duration(now.left_s)} left"


def recommendation(best: Best) -> str:
    """A best with its value, and what that is where it is not measured."""
    name = ", ".join(part for part in (best.condition, best.chosen) if part) or "the point"
    value = said(best.metric, best.value, best.origin)
    return f"{name}: {value}" if value else name


def place(launch: UnderWay) -> str:
    """What a launch holds."""
    return many(launch.gpus, "GPU") if launch.gpus else "the CPU"


def tally(found: Mapping[str, int]) -> str:
    """Reasons and how often each, the most frequent first."""
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count}" for reason, count in ranked)


def first_code(reasons: Sequence[str]) -> str:
    """The code of the gravest of a window's reasons, which stands first."""
    return code(reasons[0] if reasons else "")


def code(reason: str) -> str:
    """What a reason begins with: its code, without the detail."""
    return first_line(reason).partition(":")[0] or "no reason given"


def said(metric: str, value: float | None, caveat: str | None) -> str:
    """A number with its unit, and beside joules what they are, where they are not measured."""
    if value is None:
        return ""
    return quantity(value, metric) + (f" ({caveat})" if caveat and is_energy(metric) else "")


def origin(energy: Energy | None, *, simulated: bool) -> str:
    """What joules are: of the simulated engine or meter a simulation, whatever read them."""
    if simulated or (energy is not None and energy.source == "simulated"):
        return "simulation"
    if energy is None:
        return UNKNOWN_ORIGIN
    return "measured" if energy.measured else "estimate"


def first_line(text: str) -> str:
    """The first line of a text, cut where it is very long."""
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} ..."


def many(count: int, name: str, plural: str | None = None) -> str:
    """A count with its noun."""
    return f"{count} {name if count == 1 else plural or name + 's'}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{digits(seconds / 3600)} h"


def _numbers(record: Record) -> str:
    if record.status in ("infeasible", "failed", "wrong_setting"):
        return f"{record.status}: {first_line(record.reason or 'no reason given')}"
    caveat = _caveat(record)
    shown = [text for metric in SHOWN if (text := said(metric, record.metrics.get(metric), caveat))]
    if record.status == "energy_invalid":
        shown.append(first_line(record.reason or "no reason given"))
    return f"{record.status} {', '.join(shown)}"


def _caveat(record: Record) -> str | None:
    simulated = record.config.get("engine.kind") == "simulated"
    found = origin(record.energy, simulated=simulated)
    return found if found in ("estimate", "simulation") else None


def _joules(energy_j: Mapping[str, float]) -> Iterable[str]:
    for what, joules in sorted(energy_j.items(), key=lambda item: item[0] != "measured"):
        caveat = "" if what == "measured" else f" ({what})"
        yield f"{quantity(joules, 'energy_j')}{caveat}"
