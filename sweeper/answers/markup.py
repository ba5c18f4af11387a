"""HTML and SVG as text in which everything that is not markup is escaped (pure)."""

from collections.abc import Iterable
from html import escape

VOID = frozenset({"br", "hr", "meta", "img", "wbr"})
"""Elements that have no end tag in HTML."""


class Html(str):
    """Text that is markup; any other text is escaped wherever it is put into an element."""

    __slots__ = ()


def element(name: str, *children: object, **attributes: object) -> Html:
    """An element. Children may be nested lists; `None` is nothing.

    An attribute that Python has a word for takes a `_` behind it, and `_` stands for `-`. `True`
    is an attribute without a value; `None` and `False` are none.
    """
    said = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{name}{said}>")
    return Html(f"<{name}{said}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Children one after the other, escaped unless they are markup."""
    return Html("".join(_text(child) for child in children))


def _text(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return str(child)
    if isinstance(child, str):
        return escape(child)
    if isinstance(child, Iterable):
        return "".join(_text(each) for each in child)
    return escape(str(child))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value), quote=True)}"'
