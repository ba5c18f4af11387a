"""The study file: read, checked and frozen, every fault in one message.

file.py        YAML, what it extends, references -> keys; and back to text
overrides.py   how keys of several files and words lie over each other
assemble.py    keys -> Study, with axes.py, selections.py, kinds.py
rules.py       what is impossible; later.py: what is announced and not there yet
source.py      where in which file a key was written
"""

from sweeper.study.assemble import REHEARSAL
from sweeper.study.file import dump, load
from sweeper.study.later import unavailable
from sweeper.study.rules import looks

__all__ = ["REHEARSAL", "dump", "load", "looks", "unavailable"]
