"""A study under way on a screen: as many lines as fit, the less urgent ones left out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from sweeper.progress.snapshot import Best, Snapshot, Trouble
from sweeper.progress.words import (
    counts,
    done,
    duration,
    many,
    recommendation,
    spent,
    tally,
    time_left,
)

BEST_AT_MOST = 3
TROUBLES_AT_MOST = 2
ROWS_AT_LEAST = 3
"""Lines of the table of launches that nothing else may take: its head, a launch, how many more."""

Lines = list[list[Segment]]
Part = tuple[str, str]
"""A style and a text."""
MakeLine = Callable[..., Text]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A snapshot, to be drawn at the width of the console in at most `height` lines.

    Without a height everything is drawn, and in full.
    """

    now: Snapshot
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        flat = options.update(height=None)

        def drawn(parts: Iterable[RenderableType]) -> Lines:
            return [line for part in parts for line in console.render_lines(part, flat, pad=False)]

        lines = self._all(drawn) if self.height is None else self._fitting(drawn, self.height)
        for line in lines:
            yield from line
            yield Segment.line()

    def _all(self, drawn: Callable[[Iterable[RenderableType]], Lines]) -> Lines:
        now = self.now
        return [
            *drawn(_head(now, _whole)),
            *drawn(_launches(now, len(now.under_way))),
            *drawn(_best(now.best, len(now.best), _whole)),
            *drawn(_troubles(now.troubles, len(now.troubles), _whole)),
        ]

    def _fitting(self, drawn: Callable[[Iterable[RenderableType]], Lines], height: int) -> Lines:
        now = self.now
        head = drawn(_head(now, _cut))
        room = height - len(head) - min(ROWS_AT_LEAST, len(now.under_way) + 1)
        foot: Lines = []
        troubles = [_troubles(now.troubles, n, _cut) for n in range(TROUBLES_AT_MOST, -1, -1)]
        best = [_best(now.best, n, _cut) for n in range(BEST_AT_MOST, -1, -1)]
        for sizes in (troubles, best):
            lines = next((found for size in sizes if len(found := drawn(size)) <= room), [])
            foot = [*lines, *foot]
            room -= len(lines)
        rows = height - len(head) - len(foot) - 1
        running = len(now.under_way)
        table = drawn(_launches(now, running if running <= rows else max(rows - 1, 0)))
        return [*head, *table, *foot][:height]


def _head(now: Snapshot, line: MakeLine) -> Iterable[RenderableType]:
    facts = [done(now), time_left(now)]
    if now.more and now.budget:
        facts.append(f"within {now.budget}")
    if now.then:
        facts.append(f"then {now.then}")
    yield line(("bold", now.study), ("", f": {'; '.join(filter(None, facts))}"))
    if now.share is not None and not now.more:
        yield ProgressBar(total=1.0, completed=now.share)
    before = [f"{now.before} measured before"] if now.before else []
    yield line(("", ", ".join([f"{now.counts['ok']} ok", *counts(now), *before])))
    yield line(("", f"{spent(now)}; {many(now.leases, 'lease')}"))
    if losses := "; ".join(_losses(now)):
        yield line(("", losses))


def _losses(now: Snapshot) -> Iterable[str]:
    if now.deaths:
        yield f"died: {tally(now.deaths)}"
    if now.discards:
        yield f"windows without energy: {tally(now.discards)}"


def _launches(now: Snapshot, shown: int) -> Iterable[RenderableType]:
    under_way = now.under_way
    if not under_way:
        if now.left:
            yield _cut(("dim", "no launch is under way"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=True, header_style="dim")
    table.add_column("trial", no_wrap=True)
    table.add_column("node", no_wrap=True, max_width=16)
    table.add_column("GPUs", no_wrap=True, justify="right")
    table.add_column("phase", no_wrap=True)
    table.add_column("for", no_wrap=True, justify="right")
    table.add_column("point", no_wrap=True, ratio=1)
    table.add_column("done", no_wrap=True, justify="right")
    for each in under_way[:shown]:
        of_block = f"{each.launch}/{each.launches} " if each.launches > 1 else ""
        cells = [
            each.trial_id + (f"#{each.attempt + 1}" if each.attempt else ""),
            each.node,
            str(each.gpus) if each.gpus else "CPU",
            of_block + each.phase,
            duration(each.phase_s),
            each.point or "",
            f"{each.points_done}/{each.points}",
        ]
        table.add_row(*(Text(cell) for cell in cells))
    yield table
    if len(under_way) > shown:
        yield _cut(("dim", f"and {len(under_way) - shown} more"))


def _best(best: Sequence[Best], shown: int, line: MakeLine) -> Iterable[RenderableType]:
    for each in best[:shown]:
        yield line(("green", "best so far "), ("", recommendation(each)))
    if 0 < shown < len(best):
        yield _cut(("dim", f"and {many(len(best) - shown, 'more condition')}"))


def _troubles(troubles: Sequence[Trouble], shown: int, line: MakeLine) -> Iterable[RenderableType]:
    for each in troubles[-shown:] if shown else ():
        yield line(("red", each.trial_id), ("", f": {each.reason}"))
        if each.log is not None:
            yield _whole(("", f"log: {each.log}"))


def _cut(*parts: Part) -> Text:
    """One line, cut where it is too long."""
    text = _whole(*parts)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _whole(*parts: Part) -> Text:
    """A line that goes on below where it is too long."""
    return Text.assemble(*((text, style) for style, text in parts), overflow="fold")
