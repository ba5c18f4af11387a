"""A study that was measured, found again by its YAML file or its folder."""

from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import StudyError
from sweeper.plan import expand
from sweeper.results.contents import FILE, Contents, read
from sweeper.results.record import Record
from sweeper.spec import Study
from sweeper.study import load


@dataclass(frozen=True, kw_only=True)
class Shelved:
    """A study with what its journal holds: `whole`, and of its points alone."""

    study: Study
    whole: Contents
    contents: Contents

    @property
    def records(self) -> tuple[Record, ...]:
        """The records that stand: verdicts, and failures of points without one."""
        return self.contents.standing()


def open_study(name: str, root: Path) -> Shelved:
    """The study of a YAML file, or of its folder `mlruns/studies/NAME/`.

    Raises:
        StudyError: neither is there, or nothing was measured yet.
        JournalError: the journal is damaged.
    """
    study, folder = begun(name, root)
    whole = read(folder / FILE)
    return Shelved(study=study, whole=whole, contents=of_study(whole, study))


def begun(name: str, root: Path) -> tuple[Study, Path]:
    """The study of a YAML file or folder, and the folder where its journal was begun.

    Raises:
        StudyError: neither is there, or nothing was measured yet.
    """
    study = load(Path(name))
    folder = folder_of(name, study, root)
    if not (folder / FILE).exists():
        raise StudyError(f"{name}: nothing was measured yet, run: python -m sweeper {name}")
    return study, folder


def of_study(contents: Contents, study: Study) -> Contents:
    """A journal without what was measured when the study's text was another.

    Such records stay in the journal, and count again when their points come back; till then they
    may be of other traffic, which no condition tells apart.
    """
    points, _ = expand(study)
    return contents.only({point.id for point in points})


def folder_of(name: str, study: Study, root: Path) -> Path:
    """The folder of a study that was named by its YAML file or by the folder itself."""
    path = Path(name)
    return path if path.is_dir() else root / "studies" / study.name
