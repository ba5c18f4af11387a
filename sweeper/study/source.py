"""Where a key of a study was written: the file and line, or the word of the command line."""

from collections.abc import Iterable
from dataclasses import dataclass

import yaml


@dataclass(frozen=True)
class Source:
    """One text that sets keys: all those of `node`, which stands at the dotted key `root`."""

    name: str
    node: yaml.Node | None
    root: str = ""
    lines: bool = True


@dataclass(frozen=True)
class _Found:
    """A key and its value in a source, and how much of what was looked for it is."""

    source: Source
    key: yaml.Node | None
    value: yaml.Node | None
    depth: int


class Sources:
    """The texts a study is made of, the one that decides first."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)

    def place(self, where: str) -> str:
        """Name and line of the text that sets a dotted key, or what is above it."""
        found = self._find(where)
        if found.key is None or not found.source.lines:
            return found.source.name
        return f"{found.source.name}:{found.key.start_mark.line + 1}"

    def written(self, where: str) -> str | None:
        """The value of a dotted key as it was written."""
        found = self._find(where)
        whole = found.depth == len(where) and isinstance(found.value, yaml.ScalarNode)
        return str(found.value.value) if whole and found.value is not None else None

    def _find(self, where: str) -> _Found:
        """The first source that reaches furthest down a key."""
        return max((_descend(source, where) for source in self._sources), key=lambda one: one.depth)


def _descend(source: Source, where: str) -> _Found:
    if source.root and not f"{where}.".startswith((f"{source.root}.", f"{source.root}[")):
        return _Found(source, None, None, -1)
    found = _Found(source, source.node if source.root else None, source.node, len(source.root))
    while found.value is not None and found.depth < len(where):
        below = _step(found.value, where, found.depth)
        if below is None:
            break
        found = _Found(source, *below)
    return found


def _step(node: yaml.Node, where: str, at: int) -> tuple[yaml.Node, yaml.Node, int] | None:
    """The key, the value and the end of the longest part of `where` that a node has."""
    rest = where[at:].removeprefix(".")
    start = len(where) - len(rest)
    if isinstance(node, yaml.SequenceNode) and rest.startswith("["):
        number, bracket, _ = rest[1:].partition("]")
        if bracket and number.isdigit() and int(number) < len(node.value):
            item = node.value[int(number)]
            return item, item, start + len(number) + 2
    if isinstance(node, yaml.MappingNode):
        for key, value in sorted(node.value, key=lambda pair: -len(str(pair[0].value))):
            name = str(key.value)
            if rest == name or rest.startswith((f"{name}.", f"{name}[")):
                return key, value, start + len(name)
    return None
