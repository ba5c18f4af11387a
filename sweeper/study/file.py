"""The study file: from YAML and `key=value` words to a frozen `Study`, and back to text.

file over what it extends --lay--> keys <--override-- key=value
                                    |
                                 resolve (${other.key}) --> assemble --> Study
"""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeper.errors import StudyError
from sweeper.schema import INVALID, Faults, leaf_of, overlap, tree, unknown
from sweeper.spec import Axis, Study
from sweeper.study import overrides as laying
from sweeper.study.assemble import assemble
from sweeper.study.axes import moved
from sweeper.study.source import Source, Sources

RESOLVED = "study.yaml"
"""The file in a study's folder that holds it as resolved."""
LARGEST_BYTES = 2**20
DEEPEST = 32
MOST_NODES = 200_000
"""Values in one file, anchors expanded."""
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_BROKEN = re.compile(r"\\\$\{|\$\{(?![A-Za-z_]\w*(?:\.\w+)*\})")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class _Text:
    """Keys as one file or one word of the command line sets them."""

    name: str
    path: Path
    data: Any
    node: yaml.Node


def load(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """The study of a YAML file, or of a study's folder, with `key=value` words over it.

    Raises:
        StudyError: with every fault that was found, each with its place and the way out.
    """
    file = _study_file(Path(path))
    chain = _chain(file)
    words, refused = _words(overrides)
    sources = Sources([*_word_sources(words), *(Source(text.name, text.node) for text in chain)])
    faults = Faults(sources.written)
    keys = _lay(chain, words, faults)
    if keys.get("name") is None:
        keys["name"] = file.stem
    resolved = _resolve(keys, faults)
    rehearsal = file.name == RESOLVED and file.resolve().parent.name == keys["name"]
    study = assemble(resolved, faults, rehearsal=rehearsal)
    _refuse_moving_references(keys, study, faults)
    said = [f"{sources.place(where)}: {where}: {message}" for where, message in faults.found]
    everything = list(dict.fromkeys([*refused, *_broken([*chain, *words]), *said]))
    if everything:
        raise StudyError(everything)
    return study


def dump(study: Study) -> str:
    """The study as YAML with every key, which loads to an equal one."""
    plain = tree(study)
    keys = {
        "name": plain.pop("name"),
        **plain.pop("settings"),
        **plain,
        "axes": {axis.label: _written(axis) for axis in study.axes},
        "conditions": {axis.label: _written(axis) for axis in study.conditions},
    }
    return OmegaConf.to_yaml(OmegaConf.create(keys))


def _written(axis: Axis) -> list[Any]:
    if all(list(choice) == [axis.label] for choice in axis.choices):
        return [choice[axis.label] for choice in axis.choices]
    return [dict(choice) for choice in axis.choices]


def _study_file(path: Path) -> Path:
    if not _is(path, Path.is_dir):
        return path
    if not _is(path / RESOLVED, Path.is_file):
        raise StudyError(
            f"{path}: a folder without {RESOLVED}: give a YAML file or a study's folder"
        )
    return path / RESOLVED


def _chain(file: Path) -> list[_Text]:
    """A study file and those it extends, in the order they decide."""
    chain = [_read(file)]
    seen = {file.resolve()}
    while (given := chain[-1].data.get("extends")) is not None:
        text = chain[-1]
        place = Sources([Source(text.name, text.node)]).place("extends")
        if not isinstance(given, str) or "${" in given:
            raise StudyError(f"{place}: extends: wanted: the path of one study file, as a word")
        path = text.path.parent / given
        if not _is(path, Path.is_file):
            raise StudyError(
                f"{place}: extends: {path} is not there; it is relative to {text.path}"
            )
        if path.resolve() in seen:
            raise StudyError(f"{place}: extends: {given} extends this file in turn")
        seen.add(path.resolve())
        chain.append(_read(path))
    return chain


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    """`what`, and false for a path that no file can have."""
    try:
        return what(path)
    except (OSError, ValueError):
        return False


def _read(path: Path) -> _Text:
    try:
        if path.exists() and not path.is_file():
            raise StudyError(f"{path}: not a file")
        with path.open("rb") as opened:
            raw = opened.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file{_others(path)}") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from error
    if len(raw) > LARGEST_BYTES:
        raise StudyError(f"{path}: larger than {LARGEST_BYTES} bytes, no study file is")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not a text in UTF-8 (byte {error.start})") from error
    parsed = _parse(text, str(path), path)
    if not isinstance(parsed.data, Mapping):
        raise StudyError(f"{path}: not a mapping of keys; a study begins like: name: my_study")
    return parsed


def _others(path: Path) -> str:
    others = sorted(str(each) for each in path.parent.glob("*.yaml"))[:8]
    return f"; there are {', '.join(others)}" if others else ""


def _parse(text: str, name: str, path: Path) -> _Text:
    """YAML with OmegaConf's reading of it (YAML 1.1 without timestamps, no key twice)."""
    try:
        _refuse_depth(text)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise StudyError(f"{name}: empty; a study begins like: name: my_study")
        if not isinstance(node, yaml.MappingNode):
            return _Text(name, path, None, node)
        loaded = OmegaConf.load(io.StringIO(text), max_yaml_expanded_nodes=MOST_NODES)
        return _Text(name, path, OmegaConf.to_container(loaded, resolve=False), node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = name if mark is None else f"{name}:{mark.line + 1}"
        raise StudyError(f"{place}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(f"{name}: cannot be used: {said}") from error


def _refuse_depth(text: str) -> None:
    """Composing nests as deep as the text does, and may end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST}")


@dataclass(frozen=True)
class _Word:
    """A `key=value` word of the command line."""

    name: str
    key: str
    data: Any
    node: yaml.Node | None


def _words(given: Sequence[str]) -> tuple[list[_Word], list[str]]:
    """The words in order, and what is wrong with those that are none."""
    found, faults = [], []
    for text in given:
        key, equals, written = (part.strip() for part in text.partition("="))
        name = f"command line, {text}"
        if not equals or not key or not written:
            faults.append(f"{name}: not key=value, such as workload.batch_size=8 or demand=null")
        elif key == "extends":
            faults.append(f"{name}: extends: belongs in a study file")
        elif not laying.is_known(key):
            faults.append(f"{name}: {key}: {unknown(key, laying.study_keys())}")
        else:
            try:
                found.append(_Word(name, key, *_parse_value(written)))
            except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
                said = getattr(error, "problem", None) or str(error).partition("\n")[0]
                faults.append(f"{name}: {key}: the value is not YAML: {said}")
    return found, faults


def _parse_value(text: str) -> tuple[Any, yaml.Node | None]:
    _refuse_depth(text)
    node = yaml.compose(text, Loader=_Loader)
    loaded: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]), resolve=False)
    return loaded["value"], node


def _word_sources(words: Sequence[_Word]) -> Iterator[Source]:
    for word in reversed(words):
        roots = [word.key]
        if leaf_of(word.key) is not None:
            roots += [f"axes.{word.key}", f"conditions.{word.key}"]
        yield from (Source(word.name, word.node, root, lines=False) for root in roots)


def _lay(chain: Sequence[_Text], words: Sequence[_Word], faults: Faults) -> dict[str, Any]:
    keys = laying.defaults()
    for text in reversed(chain):
        own = {key: given for key, given in text.data.items() if key != "extends"}
        keys.pop("name", None)
        keys = laying.lay(own, keys)
    for word in words:
        above = laying.swept_above(keys, word.key)
        if above is not None:
            faults.add(word.key, f"is part of {above}, which is swept: set {above} instead")
        else:
            keys = laying.override(keys, word.key, word.data)
    return keys


def _resolve(keys: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """The keys with every `${other.key}` in place; `INVALID` where that cannot be."""
    clean = _mapped(keys, "", lambda _, text: None if _BROKEN.search(text) else text)
    config = OmegaConf.create(clean, max_yaml_expanded_nodes=None)

    def resolve(where: str, text: str) -> Any:
        if _BROKEN.search(text):
            return INVALID
        if text == "???":
            faults.add(where, "??? leaves it open: give it a value")
            return INVALID
        if not _REFERENCE.search(text):
            return text
        try:
            found = OmegaConf.merge(config, {"resolved": text}).resolved
            return (
                OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
            )
        except (OmegaConfBaseException, RecursionError) as error:
            faults.add(where, f"{text} cannot be resolved: {str(error).partition(chr(10))[0]}")
            return INVALID

    found: dict[str, Any] = _mapped(keys, "", resolve)
    return found


def _refuse_moving_references(keys: Mapping[str, Any], study: Study, faults: Faults) -> None:
    """Note every reference to a key that an axis moves: it would not follow."""
    swept = {key for axis in (*study.axes, *study.conditions) for key in moved(axis)}

    for where, text in _strings(keys, ""):
        for key in _REFERENCE.findall(text):
            if any(overlap(key, each) for each in swept):
                way = "let an axis of mappings move both"
                faults.add(where, f"{text} refers to {key}, which an axis moves: {way}")


def _broken(texts: Sequence[_Text | _Word]) -> Iterator[str]:
    """What to say of each `${` that is no reference to a key, also where another file decides."""
    for text in texts:
        root = text.key if isinstance(text, _Word) else ""
        sources = Sources([Source(text.name, text.node, root, lines=not root)])
        for where, given in _strings(text.data, root):
            if _BROKEN.search(given):
                said = "a study file is data: only ${other.key} is known, no resolver"
                yield f"{sources.place(where)}: {where}: {given}: {said}"


def _strings(given: Any, where: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    _mapped(given, where, lambda place, text: found.append((place, text)))
    return found


def _mapped(given: Any, where: str, change: Callable[[str, str], Any]) -> Any:
    """Plain data with every text changed."""
    if isinstance(given, Mapping):
        return {
            key: _mapped(each, f"{where}.{key}" if where else str(key), change)
            for key, each in given.items()
        }
    if isinstance(given, list):
        return [_mapped(each, f"{where}[{i}]", change) for i, each in enumerate(given)]
    return change(where, given) if isinstance(given, str) else given
