"""`python -m sweeper doctor`: what each node can measure and run, what is missing, how to get it.

The cluster is joined or started as a study does it (`cluster/session.py`), every node is asked
(`cluster/probe.py: examine`), and what it says is judged by pure functions.

    facts -> diagnosis.py (abilities.py, gpus.py) -> findings -> sheet.py, or plain data
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from sweeper.doctor.diagnosis import Diagnosis, Place, diagnose
from sweeper.doctor.sheet import text
from sweeper.errors import PlaceError, StudyError
from sweeper.results.addresses import check, place_of
from sweeper.results.files import refuse_unwritable
from sweeper.spec import ClusterSpec, ResourcesSpec

__all__ = ["address_of", "examine", "text"]

ADDRESS = "cluster.address"


def address_of(words: Sequence[str], address: str | None) -> str:
    """The cluster that a command line names, `auto` where it names none.

    Raises:
        StudyError: a word sets something else, or the address is said twice.
    """
    said = [] if address is None else [address]
    for word in words:
        key, equals, value = word.partition("=")
        if key != ADDRESS or not equals or not value:
            raise StudyError(f"{word}: doctor takes {ADDRESS}=auto, local or HOST:PORT only")
        said.append(value)
    if len(said) > 1:
        raise StudyError(f"{ADDRESS} is said more than once: {', '.join(said)}")
    return said[0] if said else "auto"


def examine(address: str, root: Path, say: Callable[[str], None]) -> Diagnosis:
    """Ask every node of a cluster, and whether a study's records could be kept under `root`.

    Raises:
        PlaceError: there is no such cluster.
    """
    from sweeper.cluster.probe import differences
    from sweeper.cluster.session import reach

    unwritable, uri = _records(root)
    with reach(ClusterSpec(address=address), ResourcesSpec()) as session:
        say("asking every node; this takes up to half a minute")
        nodes = session.examine()
        joined = session.address
    answering = [facts for facts in nodes if "versions" in facts]
    place = Place(
        address=joined,
        unequal=tuple(differences(answering)),
        unwritable=unwritable,
        tracking_uri=uri,
    )
    return diagnose(place, nodes)


def _records(root: Path) -> tuple[tuple[str, ...], str]:
    """Why records could not be kept, and the address of MLflow's."""
    attempts: tuple[Callable[[], None], ...] = (
        lambda: refuse_unwritable(root / "studies"),
        lambda: check(None, root),
    )
    reasons = []
    for attempt in attempts:
        try:
            attempt()
        except PlaceError as error:
            reasons.append(str(error))
    return tuple(reasons), place_of(None, root).public_uri
