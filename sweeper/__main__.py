"""The commands: `python -m sweeper STUDY.yaml` runs a study, the others read what it left."""

import argparse
import difflib
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from sweeper.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_MEETS,
    EXIT_OK,
    EXIT_WRONG,
    MachineryError,
    StudyError,
    SweeperError,
)
from sweeper.interrupts import Interrupts
from sweeper.overview import overview

if TYPE_CHECKING:
    from sweeper.forecast import PoolNode
    from sweeper.spec import Study

ROOT = Path("mlruns")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return EXIT_OK
    command = COMMANDS.get(words[0])
    try:
        return command(words[1:]) if command else run(words)
    except SweeperError as error:
        print(f"sweeper: {error}", file=sys.stderr)
        return EXIT_FAILED if isinstance(error, MachineryError) else EXIT_WRONG
    except KeyboardInterrupt:
        print(_go_on(words), file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough, as with `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def run(words: Sequence[str]) -> int:
    """`python -m sweeper STUDY.yaml [key=value ...]`."""
    parser = _parser("STUDY.yaml [key=value ...] [options]")
    parser.add_argument("study", metavar="STUDY.yaml", help="the study, or its folder")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="a key of the study, set otherwise"
    )
    parser.add_argument(
        "--dry-run",
        nargs="?",
        const="",
        metavar="2x8:H200",
        dest="pool",
        help="say what it will come to, on such a pool, and do nothing",
    )
    parser.add_argument(
        "--rehearse",
        metavar="2x8:H200",
        help="the whole study on a pretend cluster of such nodes, with the simulated engine",
    )
    changed = parser.add_mutually_exclusive_group()
    for name, way in (("remeasure", "measure everything again"), ("mix", "go on regardless")):
        changed.add_argument(
            f"--{name}",
            action="store_const",
            const=name,
            dest="changed",
            help=f"when the environment changed since the study began, {way}",
        )
    parser.add_argument(
        "--retry", choices=("failed", "energy_invalid"), help="measure those points again"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_intermixed_args(_without_pool(words))
    _refuse_no_study(asked.study)
    from sweeper.study import load

    study = load(Path(asked.study), asked.overrides)
    pool: tuple[PoolNode, ...] = ()
    if asked.rehearse is not None:
        from sweeper.forecast import parse_pool
        from sweeper.rehearsal import rehearsed

        pool = parse_pool(asked.rehearse)
        study = rehearsed(study, pool)
    if asked.pool is not None:
        from sweeper.dry_run import dry_run

        print(dry_run(study, asked.pool, as_json=asked.json))
        return EXIT_OK
    return _drive(study, pool, asked, words)


def _without_pool(words: Sequence[str]) -> list[str]:
    """The words, `--dry-run` before a study or an override marked as one without a pool."""
    following = [*words[1:], ""]
    return [
        "--dry-run=" if word == "--dry-run" and ("=" in then or _is_study(then)) else word
        for word, then in zip(words, following, strict=True)
    ]


def _is_study(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or os.sep in word or os.path.lexists(word)


def _refuse_no_study(word: str) -> None:
    """A word that is no path is meant as a command."""
    if not _is_study(word):
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"the commands: {', '.join(COMMANDS)}"
        raise StudyError(f"{word}: neither a study file nor a command; {meant}")


def front(words: Sequence[str]) -> int:
    """`python -m sweeper front STUDY...`: the front of each condition."""
    return _read_answers(words, "front")


def best(words: Sequence[str]) -> int:
    """`python -m sweeper best STUDY`: the recommendation of each condition, and why."""
    return _read_answers(words, "best")


def status(words: Sequence[str]) -> int:
    """`python -m sweeper status STUDY`: how far a study is, also while it runs."""
    parser = _parser("status STUDY [--json]")
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or a study's folder")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args(words)
    from sweeper.progress.status import status_text

    print(status_text(asked.study, ROOT, as_json=asked.json))
    return EXIT_OK


def show(words: Sequence[str]) -> int:
    """`python -m sweeper show STUDY ID`: one point's receipt."""
    parser = _parser("show STUDY ID")
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or a study's folder")
    parser.add_argument("id", metavar="ID", help="a point's id, or how it begins")
    asked = parser.parse_args(words)
    from sweeper.answers.receipt import receipt
    from sweeper.shelf import open_study

    print(receipt(open_study(asked.study, ROOT).whole.standing(), asked.id))
    return EXIT_OK


def export(words: Sequence[str]) -> int:
    """`python -m sweeper export STUDY --to x.csv|.parquet`: the results as a table."""
    parser = _parser("export STUDY --to x.csv|.parquet")
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or a study's folder")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="CSV or Parquet")
    asked = parser.parse_args(words)
    from sweeper.answers.best import answers
    from sweeper.answers.claims import judged
    from sweeper.answers.export import save
    from sweeper.shelf import open_study

    shelved = open_study(asked.study, ROOT)
    study, records = shelved.study, shelved.records
    print(save(asked.to, records, answers(records, study), judged(study, records)))
    return EXIT_OK


def report(words: Sequence[str]) -> int:
    """`python -m sweeper report STUDY`: the page of a study, written into its folder."""
    parser = _parser("report STUDY")
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or a study's folder")
    asked = parser.parse_args(words)
    from sweeper.answers.best import answers
    from sweeper.answers.page import page, save
    from sweeper.answers.page_figures import figures
    from sweeper.shelf import folder_of, open_study

    shelved = open_study(asked.study, ROOT)
    found = answers(shelved.records, shelved.study)
    text = page(shelved.study, shelved.contents, found)
    folder = folder_of(asked.study, shelved.study, ROOT)
    print(save(text, figures(shelved.study, found), folder))
    return EXIT_OK


def verify(words: Sequence[str]) -> int:
    """`python -m sweeper verify STUDY`: every number made again from raw readings and events."""
    parser = _parser("verify STUDY [--json]")
    parser.add_argument("study", metavar="STUDY", help="a YAML file, or a study's folder")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args(words)
    from sweeper.answers.stated import stated_in
    from sweeper.shelf import begun
    from sweeper.verify import verify
    from sweeper.verify.report import as_object, text

    _, folder = begun(asked.study, ROOT)
    found = verify(folder, partial(stated_in, folder))
    print(json.dumps(as_object(found)) if asked.json else text(found))
    return EXIT_OK if found.ok else EXIT_FAILED


def doctor(words: Sequence[str]) -> int:
    """`python -m sweeper doctor`: what each node can measure and run, and what is missing."""
    parser = _parser("doctor [cluster.address=HOST:PORT] [--json]")
    parser.add_argument("words", nargs="*", metavar="cluster.address=HOST:PORT")
    parser.add_argument("--address", metavar="HOST:PORT", help="the same; auto, or local")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_intermixed_args(words)
    from sweeper.doctor import address_of, examine, text

    address = address_of(asked.words, asked.address)
    finish = _keep_standard_output() if asked.json else None
    found = examine(address, ROOT, lambda line: print(line, file=sys.stderr))
    finish(found.as_object()) if finish else print(text(found))
    return EXIT_OK if found.ok else EXIT_FAILED


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "front": front,
    "best": best,
    "status": status,
    "show": show,
    "export": export,
    "report": report,
    "verify": verify,
    "doctor": doctor,
}


def _drive(
    study: "Study", pool: "tuple[PoolNode, ...]", asked: argparse.Namespace, words: Sequence[str]
) -> int:
    from sweeper.driver import Options, drive
    from sweeper.progress.live import view_for
    from sweeper.terminal import last_words

    finish = _keep_standard_output() if asked.json else None
    options = Options(root=ROOT, changed=asked.changed or "stop", retry=asked.retry, pool=pool)
    view = view_for(sys.stdout, os.environ)
    interrupts = Interrupts(_go_on(words), leave=view.leave)
    interrupts.listen()
    outcome = drive(study, options, view, interrupts)
    _say(last_words(outcome))
    if finish is not None:
        finish(outcome.summary)
    if outcome.interrupted:
        _say(_go_on(words))
        return EXIT_INTERRUPTED
    if outcome.summary["failed"]:
        return EXIT_FAILED
    return EXIT_NOTHING_MEETS if any(a.best is None for a in outcome.answers) else EXIT_OK


def _read_answers(words: Sequence[str], command: str) -> int:
    many = command == "front"
    parser = _parser(f"{command} STUDY{'...' * many} [options]")
    parser.add_argument(
        "studies",
        nargs="+" if many else 1,
        metavar="STUDY",
        help="a YAML file, or a study's folder",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--minimize",
        action="append",
        default=[],
        metavar="METRIC",
        help="in place of the study's objectives" if many else "before the study's objectives",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="'METRIC<=X'",
        help="a further limit, in SI units",
    )
    parser.add_argument(
        "--with-discards",
        action="store_true",
        help="count windows whose energy was discarded, where their readings tell joules",
    )
    asked = parser.parse_args(words)
    from sweeper.shelf import open_study
    from sweeper.terminal import answers_text

    text, unmet = answers_text(
        [open_study(name, ROOT) for name in asked.studies],
        only_best=command == "best",
        minimize=asked.minimize,
        where=asked.where,
        as_json=asked.json,
        discarded=asked.with_discards,
    )
    print(text)
    return EXIT_NOTHING_MEETS if unmet and command == "best" else EXIT_OK


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as everything else is said."""

    def error(self, message: str) -> NoReturn:
        raise StudyError(f"{message}\nusage: {self.usage}\nall commands: python -m sweeper")


def _parser(usage: str) -> argparse.ArgumentParser:
    return _Parser(prog="python -m sweeper", usage=f"python -m sweeper {usage}", allow_abbrev=False)


def _keep_standard_output() -> Callable[[Mapping[str, Any]], None]:
    """Keep descriptor 1 aside for one JSON object, and put 2 in its place.

    Before Ray starts: its workers write to whatever descriptor 1 is.
    """
    kept: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def finish(summary: Mapping[str, Any]) -> None:
        json.dump(summary, kept)
        kept.write("\n")
        kept.close()

    return finish


def _go_on(words: Sequence[str]) -> str:
    return f"interrupted; go on with: python -m sweeper {shlex.join(words)}"


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
