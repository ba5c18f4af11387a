"""How a change against the baseline is said: its size, how sure it is, how it was seen (pure)."""

from sweeper.answers.change import MIN_BLOCKS, Change
from sweeper.answers.units import digits

MINUS = "\N{MINUS SIGN}"


def percent(value: float) -> str:
    """A change in percent with its sign, to about three digits and no finer than a hundredth."""
    size = abs(value)
    text = f"{size:,.{2 if size < 1 else 1 if size < 100 else 0}f}"
    if not text.strip("0."):
        return "0 %"
    return f"{MINUS if value < 0 else '+'}{text} %"


def change_text(change: Change) -> str:
    """A change in percent with its interval, if it has one."""
    text = percent(change.percent)
    if change.low is None or change.high is None:
        return text
    low, high = (percent(100 * (each - 1)).removesuffix(" %") for each in (change.low, change.high))
    return f"{text} [{low}, {high}]"


def p_text(p: float) -> str:
    """A p to two digits, and no finer than a thousandth."""
    return "< 0.001" if p < 0.001 else digits(p, significant=2)


def verdict_text(change: Change) -> str:
    """What may be claimed of a change, by which adjustment; empty where it has no p."""
    if change.p_adjusted is None:
        return ""
    over = f"over {change.family}" if change.family > 1 else "one comparison"
    by = f"p {p_text(change.p_adjusted)} ({change.adjustment}, {over})"
    if change.significant is None:
        lack = f"fewer than {MIN_BLOCKS} blocks" if change.paired else "unpaired"
        return f"{by}: no claim, {lack}"
    return f"{'' if change.significant else 'not '}significant, {by}"


def claim_text(change: Change) -> str:
    """The same in a cell, whose table names the adjustments and explains the gain of boards."""
    if change.p_adjusted is None:
        said = "no interval"
    else:
        word = {True: "significant", False: "not significant", None: "screening"}
        said = f"{word[change.significant]}, p {p_text(change.p_adjusted)}"
    gain = change.systematic
    return said if gain is None else f"{said}; ±{100 * gain:g} % beside it"


def gain_text(change: Change) -> str:
    """The gain error of boards that stands beside a change, if any does."""
    if change.systematic is None:
        return ""
    said = f"±{100 * change.systematic:g} % of the boards' gain on each side beside it"
    return f"{said}, which alone could make the difference" if change.within_gain else said


def basis_text(change: Change) -> str:
    """How the two sides of a change were measured."""
    ours, theirs = change.boards
    if ours is None or theirs is None:
        return _launches(change)
    return f"{_launches(change)}, on {_counted(ours, theirs, 'board')}"


def _launches(change: Change) -> str:
    ours, theirs = change.launches
    if change.paired:
        blocks = f"paired, {change.blocks} blocks"
        return blocks if change.low is not None else "paired, one block: no interval"
    if change.low is None:
        return "unpaired, one launch: no interval"
    return f"unpaired, {_counted(ours, theirs, 'launch', 'es')}"


def _counted(ours: int, theirs: int, what: str, plural: str = "s") -> str:
    count = f"{ours}" if ours == theirs else f"{ours} and {theirs}"
    return f"{count} {what}{plural * ((ours, theirs) != (1, 1))}"
