"""Settings that are a mapping with a `kind`: which kinds there are, with which keys (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.decoding import KINDS as DECODINGS
from sweeper.schema import Faults, leaves, read
from sweeper.spec import Settings
from sweeper.speculation import KINDS as SPECULATIONS


@dataclass(frozen=True, kw_only=True)
class NoKeys:
    """A kind that `kind` says all of."""


@dataclass(frozen=True, kw_only=True)
class Poisson:
    """Requests arrive independently of each other, `rate_rps` a second on average."""

    rate_rps: float = field(metadata={"above": 0})


KINDS: Mapping[str, Mapping[str, type | None]] = {
    "workload.arrival": {"closed": NoKeys, "poisson": Poisson, "gamma": None, "replay": None},
    "workload.decoding": DECODINGS,
    "engine.speculative": SPECULATIONS,
}
"""By key and kind, the other keys of the mapping; `None` leaves them to whoever takes them."""


def check_kind(key: str, given: Mapping[str, Any], faults: Faults) -> None:
    """Note what is wrong with a mapping of `KINDS`."""
    kinds = KINDS[key]
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        said = "missing" if kind is None else f'"{kind}" given'
        faults.add(f"{key}.kind", f"{said}, wanted: {', '.join(kinds)}")
        return
    cls = kinds[kind]
    if cls is None:
        return
    others = {name: each for name, each in given.items() if name != "kind"}
    for name in others.keys() - leaves(cls).keys():
        wanted = ", ".join(leaves(cls)) or "no key beside kind"
        faults.add(f"{key}.{name}", f"is no key of kind {kind}, which has {wanted}")
    read(cls, {name: others[name] for name in leaves(cls) if name in others}, key, faults)


def kind_of(settings: Settings, key: str) -> Any:
    """The `kind` of a mapping of `KINDS`, `None` where there is none."""
    section, _, name = key.partition(".")
    mapping = getattr(getattr(settings, section), name)
    return None if mapping is None else mapping.get("kind")
