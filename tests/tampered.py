"""A small study that was measured honestly, and its journal opened to be tampered with."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.spec import Axis
from tests.studies import MEASURE, simulated
from tests.verified import Kept

Line = dict[str, Any]


def measured(root: Path) -> Path:
    """Two launches of steady windows, long enough for energy and not."""
    made = simulated(batch_sizes=(4,), measure=replace(MEASURE, launches=2))
    workload = replace(made.settings.workload, batching="continuous")
    model = replace(made.settings.model, shape="llama-3.1-8b")
    lengths = tuple({"measure.min_window_s": seconds} for seconds in (2.0, 5.0))
    made = replace(
        made,
        settings=replace(made.settings, model=model, workload=workload),
        conditions=(Axis(label="measure.min_window_s", choices=lengths),),
        limits={"latency_mean_s": 100.0},
    )
    return Kept(made, root).measure()


class Opened:
    """A copy of the study, whose lines and files are there to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = (folder / "journal.jsonl").read_text()
        self.lines: list[Line] = [json.loads(line) for line in text.splitlines()]
        good = next(line for line in self.of("record") if line["status"] == "ok")
        self.good: Line = good
        self.bad: Line = next(line for line in self.of("record") if line["status"] != "ok")

    def of(self, kind: str) -> Iterator[Line]:
        return (line for line in self.lines if line["kind"] == kind)

    def windows(self, record: Line, index: int = 0) -> list[Line]:
        """A window where it stands in its record, and its own line."""
        return [record["windows"][index], self.line_of(record, index)]

    def line_of(self, record: Line, index: int = 0) -> Line:
        key = ("id", "launch", "stage", "attempt")
        return next(
            line
            for line in self.of("window")
            if all(line[name] == record[name] for name in key) and line["index"] == index
        )

    def events_of(self, record: Line) -> Line:
        return next(
            line
            for line in self.of("attachment")
            if (line["role"], line.get("id"), line["launch"])
            == ("events", record["id"], record["launch"])
        )

    def file(self, line: Line) -> Path:
        return self.folder / "attachments" / line["name"]

    def replace_file(self, line: Line, data: bytes) -> None:
        """A file and what the journal says of it."""
        self.file(line).write_bytes(data)
        line |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def close(self) -> None:
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        (self.folder / "journal.jsonl").write_text(text)
