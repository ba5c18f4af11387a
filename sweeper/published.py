"""The change that a claim of others states, from its text (pure).

| text | means | of several pairs |
|---|---|---|
| `+29.3%` | about that much | none: which of them is meant is not known |
| `up to -29.14%` | the largest change in that direction is about that much | the largest |
| `<0`, `<-5%`, `'>0'`, `'>10%'` | below, or above, that | all of them |
| `-5%..+5%` | within, both ends included | all of them |

Per cent of the value that it is stated against. YAML wants quotes around what begins with `>`.
"""

import re
from dataclasses import dataclass
from typing import Literal

Form = Literal["about", "up_to", "within"]
FORMS = "+29.3%, up to -29.14%, <0, '>5%' or -5%..+5%"
"""What a message says may be written."""
_NUMBER = r"([+-]?\d+(?:\.\d+)?)\s*%"
_LOOSE = r"([+-]?\d+(?:\.\d+)?)\s*%?"
_ABOUT = re.compile(rf"(up to\s+)?{_NUMBER}")
_BOUND = re.compile(rf"([<>])\s*{_LOOSE}")
_RANGE = re.compile(rf"{_LOOSE}\s*\.\.\s*{_NUMBER}")


@dataclass(frozen=True)
class Published:
    """A stated change in per cent: about one value, or between `low` and `high`.

    An end that is `None` is open. Ends of a bound (`<0`) are no part of it, those of a range are.
    """

    form: Form
    low: float | None
    high: float | None
    strict: bool = False

    @property
    def value(self) -> float:
        """The one value of `about` and `up_to`."""
        found = self.low if self.low is not None else self.high
        return 0.0 if found is None else found


def parse_change(text: str) -> Published | None:
    """The change that a text states, or `None` where it states none that is possible."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if match := _ABOUT.fullmatch(text):
        value = float(match[2])
        up_to = match[1] is not None
        if value <= -100 or (up_to and value == 0):
            return None
        return Published("up_to" if up_to else "about", value, value)
    if match := _BOUND.fullmatch(text):
        value = float(match[2])
        if value <= -100:
            return None
        low, high = (None, value) if match[1] == "<" else (value, None)
        return Published("within", low, high, strict=True)
    if match := _RANGE.fullmatch(text):
        low, high = float(match[1]), float(match[2])
        return Published("within", low, high) if -100 <= low < high else None
    return None
