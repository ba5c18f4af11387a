"""What MLflow's page of a study or a record says in words, under "Description" (pure).

MLflow shows it as Markdown and keeps it in a tag.
"""

from sweeper.results.record import Record

NOTE = "mlflow.note.content"

_LENGTH = 5000  # of a tag's value; MLflow 3 takes 8000, the servers before it 5000
_LEFT_OUT = "[... the rest is left out here ...]"


def record_note(record: Record) -> str:
    """What must not be missed beside a record's numbers, and what launches it."""
    parts = [f"**{record.status}**" + (f": {_plain(record.reason)}" if record.reason else "")]
    if provenance := _provenance(record):
        parts[0] += f". {provenance}"
    if record.undersampled:
        parts.append(f"Too few samples for {', '.join(map(_plain, record.undersampled))}.")
    parts += [
        f"Did not hold: {_plain(f'{check.name} ({check.detail})' if check.detail else check.name)}"
        for check in record.checks
        if not check.ok
    ]
    note = _cut("\n\n".join(parts), _LENGTH // 2)
    if record.launch_command is None:
        return note
    return f"{note}\n\n{_fixed_width(record.launch_command, _LENGTH - len(note) - 2)}"


def study_note(headline: str, text: str) -> str:
    """The headline, which is all that the page shows at first, and `text` as it stands."""
    head = _cut(_plain(headline), _LENGTH // 2)
    return f"{head}\n\n{_fixed_width(text, _LENGTH - len(head) - 2)}"


def _fixed_width(text: str, length: int) -> str:
    """`text` in letters of one width; of too long a text, its first lines."""
    before, after = "~~~text\n", "\n~~~"
    return f"{before}{_cut(text.rstrip(), length - len(before) - len(after))}{after}"


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    kept = text[: length - len(_LEFT_OUT) - 1]
    whole_lines = kept.rpartition("\n")[0]
    return f"{whole_lines or kept}\n{_LEFT_OUT}"


def _provenance(record: Record) -> str | None:
    energy = record.energy
    if record.config.get("engine.kind") == "simulated":
        return "**Simulation, not measured**: every number is of a simulated engine"
    if energy is None:
        return None
    of = f"{_plain(energy.source)}, of the {_plain(energy.scope)}"
    if energy.measured:
        return f"Energy: measured ({of}, by {_plain(energy.method)})"
    kind = "simulation" if energy.source == "simulated" else "estimate"
    return f"Energy: **{kind}, not measured** ({of})"


def _plain(text: str) -> str:
    """`text` in Markdown without meaning more than it says."""
    line = " ".join(text.split())
    return "".join(f"\\{each}" if each in r"\`*_[]<>#|~" else each for each in line)
