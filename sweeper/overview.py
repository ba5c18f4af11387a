"""What `python -m sweeper` says by itself: the commands, and the studies one can run."""

import re
import textwrap
from pathlib import Path

WIDTH = 90


def overview() -> str:
    """The commands, and the studies in conf/."""
    lines = [USAGE]
    studies = sorted(Path("conf").glob("*.yaml"))
    if studies:
        lines.append("studies here:")
    width = max((len(str(path)) for path in studies), default=0)
    for path in studies:
        lead = f"  {path!s:<{width}}  "
        if len(lead) > WIDTH // 2:
            lines.append(lead.rstrip())
            lead = " " * 6
        lines.append(lead + _cut(_about(path), WIDTH - len(lead)))
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """As many whole sentences as there is room for, or the beginning of the first."""
    first, *more = re.split(r"(?<=[.?!]) ", text)
    shown = textwrap.shorten(first, width, placeholder=" ...")
    for sentence in more:
        if len(shown) + 1 + len(sentence) > width:
            break
        shown += f" {sentence}"
    return shown


def _about(path: Path) -> str:
    """The sentences that a study file begins with."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return "(cannot be read)"
    found = []
    for line in lines:
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        found.append(text)
    return " ".join(found)


USAGE = """\
python -m sweeper STUDY.yaml [key=value ...]   run a study, or go on where it stopped
    --dry-run [2x8:H200]                       what it will come to, on such a pool
    --rehearse 2x8:H200[,1x4:A6000]            the whole study on a pretend cluster, simulated
    --remeasure | --mix                        when the environment changed since it began
    --retry failed|energy_invalid              measure those points again
    --json                                     the summary as one JSON object on standard output
python -m sweeper front STUDY... [--json] [--minimize METRIC]... [--where 'METRIC<=X']...
python -m sweeper best  STUDY    [--json] [--minimize METRIC] [--where 'METRIC<=X']...
    --with-discards                            both: count windows whose energy was discarded
python -m sweeper status STUDY [--json]        a study in progress, seen from another terminal
python -m sweeper show  STUDY ID               one point's receipt: timeline, checks, numbers
python -m sweeper export STUDY --to x.csv|.parquet
                                               the results as a table
python -m sweeper report STUDY                 one HTML page: plots, savings, tables, methods
python -m sweeper verify STUDY [--json]        every number recomputed from readings and events
python -m sweeper doctor                       what each node can measure, and what is missing

STUDY is the YAML file or its folder, mlruns/studies/NAME/
"""
