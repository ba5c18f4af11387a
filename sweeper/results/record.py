"""A window and a record: everything known of one point of one launch, as plain data.

These are what crosses an actor's boundary, what the journal keeps, and what every answer is made
from. Windows carry raw readings and per-request times, so that each number can be made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal, Self, TypeVar, get_args

from sweeper.errors import JournalError
from sweeper.results.reasons import voids

SCHEMA_VERSION = 2
Part = TypeVar("Part")

Status = Literal["ok", "energy_invalid", "wrong_setting", "infeasible", "failed"]
ACCEPTED: frozenset[Status] = frozenset({"ok", "energy_invalid", "wrong_setting", "infeasible"})
"""The statuses that are a verdict; a `failed` record is measured again."""

Phase = Literal["all", "prefill"]
"""What of the requests' work a window holds."""

Key = tuple[str, int, str]
"""(point id, launch number, stage): one accepted record each."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One measured interval of a point.

    `started_s` and `ended_s` are its edges on the launch's clock. `phase` is what of the requests'
    work it holds: all of it, or prefills only. `energy_j` is `None` where it could not be had, and
    `reasons` say why, each a code with a detail (`results/reasons.py`); there are none where the
    window is sound. `readings` holds the meter's two raw readings (`{"t_s", "energy_j": {device:
    joules}}`), `samples` the times of the requests that finished inside (`ttft_s`, `tpot_s`,
    `latency_s`: a list each) and the gaps between tokens (`itl_s`: pairs of seconds and how many
    tokens waited that long), `metrics` what follows. `evidence` is what the window was judged by,
    as plain data (`trial/evidence.py` names its keys).
    """

    index: int
    convention: str
    started_s: float
    ended_s: float
    requests: int
    requests_failed: int
    input_tokens: int
    output_tokens: int
    energy_j: float | None
    reasons: Sequence[str]
    readings: Sequence[Mapping[str, Any]]
    samples: Mapping[str, Sequence[Any]]
    metrics: Mapping[str, float]
    phase: Phase = "all"
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reason(self) -> str | None:
        """All reasons in one line; `None` where there are none."""
        return "; ".join(self.reasons) or None

    @property
    def discarded_j(self) -> float | None:
        """The joules between the readings of a window that counts for nothing.

        For answers that show what the discards would change. `None` for a sound window, and where
        a reason leaves no number at all.
        """
        if not self.reasons or voids(self.reasons) or len(self.readings) < 2:
            return None
        before, after = self.readings[0]["energy_j"], self.readings[-1]["energy_j"]
        return float(sum(after[device] - before[device] for device in before))

    @property
    def duration_s(self) -> float:
        """Seconds between the edges."""
        return self.ended_s - self.started_s

    @property
    def metered_s(self) -> float:
        """Seconds between the readings; those between the edges where there are not two."""
        if len(self.readings) < 2:
            return self.duration_s
        return float(self.readings[-1]["t_s"] - self.readings[0]["t_s"])


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What the joules of a record are: where from, measured or not, how, and of what."""

    source: str
    measured: bool
    method: str
    scope: str
    systematic: float | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: whether it held, and what was seen."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything known of one point of one launch.

    `config` holds every setting of the point under its dotted key, `chosen` and `condition` the
    keys that the study moved. Times are UTC of the real clock, also where the engine's is virtual.
    A metric that is not known is absent; `undersampled` names percentiles with too few samples.
    """

    id: str
    configuration: str
    launch: int
    stage: str
    study: str
    trial_id: str
    attempt: int
    status: Status
    reason: str | None
    config: Mapping[str, Any]
    chosen: Mapping[str, Any]
    condition: Mapping[str, Any]
    convention: str
    gpus: int
    environment: Mapping[str, Any]
    started_at: str
    ended_at: str
    load_s: float | None = None
    windows: Sequence[Window] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    undersampled: Sequence[str] = ()
    energy: Energy | None = None
    checks: Sequence[Check] = ()
    launch_command: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def key(self) -> Key:
        """What one accepted record is unique for."""
        return (self.id, self.launch, self.stage)

    @property
    def accepted(self) -> bool:
        """Whether this is a verdict."""
        return self.status in ACCEPTED

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives an equal record back."""
        return plain(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote, also as a line of the journal with its `kind`.

        Raises:
            JournalError: of another schema, or with keys or values that no record has; the
                message names the record.
        """
        version = data.get("schema_version")
        name = " ".join(str(data.get(part, "?")) for part in ("id", "launch", "stage", "attempt"))
        if version != SCHEMA_VERSION:
            raise JournalError(
                f"record {name} is of schema {version!r}, this sweeper reads {SCHEMA_VERSION}: "
                "use the sweeper that wrote it, or measure again under another study name"
            )
        values = {key: value for key, value in data.items() if key != "kind"}
        for key, read in (("windows", _window), ("checks", partial(_read, Check))):
            if key in values:
                items = _sequence(values[key], f"{key} of record {name}")
                values[key] = tuple(read(item, f"record {name}") for item in items)
        if "undersampled" in values:
            items = _sequence(values["undersampled"], f"undersampled of record {name}")
            values["undersampled"] = tuple(items)
        if values.get("energy") is not None:
            values["energy"] = _read(Energy, values["energy"], f"record {name}")
        record = _read(cls, values, f"record {name}")
        if record.status not in get_args(Status):
            raise JournalError(f"record {name} has the unknown status {record.status!r}")
        return record


def plain(instance: Any) -> dict[str, Any]:
    """The fields of a dataclass, and of those in them, as plain data; what they hold is not copied.

    A window has thousands of samples, which `dataclasses.asdict` would copy one by one.
    """
    found = {}
    for spec in fields(instance):
        value = getattr(instance, spec.name)
        if is_dataclass(value):
            value = plain(value)
        elif isinstance(value, list | tuple) and value and is_dataclass(value[0]):
            value = [plain(each) for each in value]
        elif isinstance(value, tuple):
            value = list(value)
        found[spec.name] = value
    return found


def _read(cls: type[Part], data: Any, of: str) -> Part:
    if not isinstance(data, Mapping):
        raise JournalError(f"{of}: a {cls.__name__} must be a mapping, not {data!r}")
    specs = fields(cls)  # type: ignore[arg-type]
    unknown = sorted(set(data) - {spec.name for spec in specs})
    needed = {s.name for s in specs if s.default is MISSING and s.default_factory is MISSING}
    missing = sorted(needed - set(data))
    if unknown or missing:
        faults = [f"lacks {name}" for name in missing] + [f"has unknown {n}" for n in unknown]
        raise JournalError(f"{of}: its {cls.__name__} {', '.join(faults)}")
    return cls(**data)


def _window(data: Any, of: str) -> Window:
    found = _read(Window, data, of)
    if found.phase not in get_args(Phase):
        raise JournalError(f"{of}: its Window has the unknown phase {found.phase!r}")
    reasons = _sequence(found.reasons, f"reasons of a Window of {of}")
    return replace(found, reasons=tuple(reasons))


def _sequence(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise JournalError(f"{what} must be a list, not {value!r}")
    return value
