"""What MLflow's page of a study or a record says in words, under "Description" (pure).

MLflow shows it as Markdown and keeps it in a tag.
"""

from sweeper.results.record import Record

NOTE = "mlflow.note.content"

_LENGTH = 5000  # of a tag's value; MLflow 3 takes 8000, the servers before it 5000
_CUT = "[... the rest is left out here ...]"


def record_note(record: Record) -> str:
    """What must not be missed beside a record's numbers, and what launches it."""
    paragraphs = [f"**{record.status}**" + (f": {_plain(record.reason)}" if record.reason else "")]
    if provenance := _provenance(record):
        paragraphs.append(provenance)
    if record.undersampled:
        paragraphs.append(f"Too few samples for {', '.join(map(_plain, record.undersampled))}.")
    paragraphs += [
        f"Did not hold: {_plain(check.name)}"
        + (f" ({_plain(check.detail)})" if check.detail else "")
        for check in record.checks
        if not check.ok
    ]
    note = "\n\n".join(paragraphs)[: _LENGTH // 2]
    if record.launch_command is None:
        return note
    return f"{note}\n\n{fixed_width(record.launch_command, _LENGTH - len(note) - 2)}"


def fixed_width(text: str, length: int = _LENGTH) -> str:
    """`text` as it stands, in letters of one width; of too long a text, its first lines."""
    before, after = "~~~text\n", "\n~~~"
    room = length - len(before) - len(after)
    text = text.rstrip("\n")
    if len(text) > room:
        kept = text[: room - len(_CUT) - 1].rpartition("\n")[0]
        text = f"{kept}\n{_CUT}"
    return f"{before}{text}{after}"


def _provenance(record: Record) -> str | None:
    energy = record.energy
    if record.config.get("engine.kind") == "simulated":
        return "**Simulation, not measured**: every number is of a simulated engine."
    if energy is None:
        return None
    what = (
        f"Energy of the {_plain(energy.scope)} by {_plain(energy.source)} ({_plain(energy.method)})"
    )
    if energy.measured:
        return f"{what}."
    kind = "simulation" if energy.source == "simulated" else "estimate"
    return f"{what}: **{kind}, not measured**."


def _plain(text: str) -> str:
    """`text` in Markdown without meaning more than it says."""
    line = " ".join(text.split())
    return "".join(f"\\{each}" if each in r"\`*_[]<>#|~" else each for each in line)
