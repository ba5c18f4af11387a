"""Plants random faults in the pure modules, one at a time, and counts those their tests find.

A fault is a changed comparison, boundary, sum, number or truth value, a negated or dropped
condition, a swapped argument or branch, `min` for `max`, a lost return value or a lost statement.
Where a change would rarely change behaviour none is planted: docstrings, annotations, decorators,
`__all__`, the types of `isinstance`, assertions, `strict=`, f-strings, what is logged and what an
error says. A fault lives in a temporary copy of the tree; tests that fail, crash or hang have
found it.
"""

import argparse
import ast
import copy
import difflib
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "sweeper/plan.py": ["tests/test_plan.py"],
    "sweeper/trial/windows.py": ["tests/test_windows.py"],
    "sweeper/trial/warmup.py": ["tests/test_warmup.py"],
    "sweeper/trial/validity.py": ["tests/test_validity.py"],
    "sweeper/results/phases.py": ["tests/test_phases.py"],
    "sweeper/results/record.py": ["tests/test_record.py"],
    "sweeper/answers/front.py": ["tests/test_front.py"],
    "sweeper/answers/change.py": ["tests/test_change.py"],
    "sweeper/answers/adjustment.py": ["tests/test_change.py"],
    "sweeper/answers/discards.py": ["tests/test_discards.py"],
    "sweeper/results/journal.py": ["tests/test_journal.py", "tests/test_attachments.py"],
    "sweeper/results/contents.py": ["tests/test_contents.py"],
}
WORKERS = 2

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil"}
LOGGERS = {"log", "logger", "logging", "warnings"}


@dataclass(frozen=True)
class Mutant:
    """One changed place of a source file: byte offsets, and what stands there instead."""

    line: int
    start: int
    end: int
    text: bytes

    def plant(self, source: bytes) -> bytes:
        """The source with the fault in it."""
        return source[: self.start] + self.text + source[self.end :]


def is_logged(node: ast.expr) -> bool:
    """Whether an expression only tells a reader something."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id in LOGGERS


def fields(node: ast.AST) -> Iterator[ast.AST]:
    """The children of a node in which faults may be planted."""
    spared = {"annotation", "returns", "decorator_list"}
    match node:
        case ast.Assert() | ast.JoinedStr() | ast.Raise() | ast.keyword(arg="strict"):
            return
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Expr(value=value) if is_logged(value):
            return
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.Call(func=ast.Name(id="isinstance"), args=[value, _]):
            yield value
            return
    for name, value in ast.iter_fields(node):
        if name not in spared:
            children = value if isinstance(value, list) else [value]
            yield from (child for child in children if isinstance(child, ast.AST))


def but(node: ast.AST, **changed: object) -> ast.AST:
    """A copy of a node with other fields."""
    twin = copy.copy(node)
    for name, value in changed.items():
        setattr(twin, name, value)
    return twin


def negated(test: ast.expr) -> ast.expr:
    """The opposite of a condition."""
    return test.operand if isinstance(test, ast.UnaryOp) else ast.UnaryOp(ast.Not(), test)


def faults(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:  # noqa: PLR0912
    """The single faults at one node: what to replace, and what by."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Call(func=ast.Name(id="isinstance")):
            return
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield node, but(node, ops=[*ops[:i], other(), *ops[i + 1 :]])
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield node, but(node, op=OPERATORS[type(op)]())
        case ast.BoolOp(op=op):
            yield node, but(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, operand
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(number) | float(number)):
            yield node, ast.Constant(number + 1)
            yield node, ast.Constant(number - 1 if number else -1)
        case ast.IfExp(body=body, orelse=orelse):
            yield node, but(node, body=orelse, orelse=body)
        case ast.If(test=test) | ast.While(test=test):
            yield test, negated(test)
        case ast.comprehension(ifs=ifs):
            for test in ifs:
                yield test, ast.Constant(True)
                yield test, negated(test)
        case ast.Call(func=ast.Name(id=name) as func) if name in NAMES:
            yield func, ast.Name(NAMES[name])
        case ast.Call(args=[first, second, *rest]) if not any(
            isinstance(argument, ast.Starred) for argument in (first, second)
        ):
            yield node, but(node, args=[second, first, *rest])
        case ast.Return(value=value) if value is not None:
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield value, ast.Constant(None)
        case ast.Expr(value=ast.Call() as call) if not is_logged(call):
            yield node, ast.Pass()
        case ast.AugAssign(op=op):
            yield node, ast.Pass()
            if type(op) in OPERATORS:
                yield node, but(node, op=OPERATORS[type(op)]())
        case ast.Raise() | ast.Continue() | ast.Break():
            yield node, ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, ast.Pass()


def mutants(source: bytes) -> list[Mutant]:
    """Every fault that can be planted in a source file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        pending.extend(fields(node))
        for old, new in faults(node):
            assert isinstance(old, ast.expr | ast.stmt)
            assert old.end_lineno is not None
            assert old.end_col_offset is not None
            text = ast.unparse(ast.fix_missing_locations(new))
            found.append(
                Mutant(
                    line=old.lineno,
                    start=starts[old.lineno - 1] + old.col_offset,
                    end=starts[old.end_lineno - 1] + old.end_col_offset,
                    text=(f"({text})" if isinstance(new, ast.expr) else text).encode(),
                )
            )
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def passes(tree: Path, tests: list[str], timeout_s: float) -> bool:
    """Whether the tests pass in a copy of the tree, in time."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {
        "HYPOTHESIS_PROFILE": "unshrunk",
        "PYTHONDONTWRITEBYTECODE": "1",  # two faults of one length within a second look alike
        "PYTHONPATH": str(tree),
    }
    with (tree / "output").open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=tree,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    return status == 0


def survivors(module: str, chosen: list[Mutant], trees: queue.SimpleQueue[Path]) -> list[Mutant]:
    """The faults that a module's tests do not find."""
    source = (ROOT / module).read_bytes()
    tree = trees.get()
    began = time.monotonic()
    if not passes(tree, TESTS[module], timeout_s=600):
        raise SystemExit(
            f"{' '.join(TESTS[module])} fails without any fault:\n{(tree / 'output').read_text()}"
        )
    timeout_s = 10 + 4 * (time.monotonic() - began)
    trees.put(tree)

    def survives(mutant: Mutant) -> bool:
        tree = trees.get()
        try:
            (tree / module).write_bytes(mutant.plant(source))
            return passes(tree, TESTS[module], timeout_s)
        finally:
            (tree / module).write_bytes(source)
            trees.put(tree)

    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(survives, chosen))
    return [mutant for mutant, survived in zip(chosen, outcomes, strict=True) if survived]


def shown(module: str, mutant: Mutant) -> str:
    """A fault for a reader: where it is, and the lines it changes."""
    source = (ROOT / module).read_bytes()
    before, after = (text.decode().splitlines() for text in (source, mutant.plant(source)))
    changes = list(difflib.unified_diff(before, after, lineterm="", n=0))[3:]
    return "\n".join([f"{module}:{mutant.line}", *changes])


def main() -> int:
    """Prints a row for each module, then the faults nobody found."""
    parser = argparse.ArgumentParser(description="how many planted faults the tests find")
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE")
    parser.add_argument("--count", type=int, default=30, help="faults for each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--floor", type=float, default=0.8, help="the least share to be found")
    options = parser.parse_args()
    if unknown := set(options.modules) - TESTS.keys():
        parser.error(
            f"no tests are named for {', '.join(sorted(unknown))}; known: {', '.join(TESTS)}"
        )

    missed: list[str] = []
    short = False
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(WORKERS):
            tree = Path(folder, str(number))
            ignored = shutil.ignore_patterns(".*", "__pycache__", "mlruns")
            shutil.copytree(ROOT, tree, ignore=ignored)
            trees.put(tree)
        print(f"{'module':30} {'mutants':>7} {'killed':>6} {'share':>6}", flush=True)
        for module in options.modules:
            possible = mutants((ROOT / module).read_bytes())
            count = min(options.count, len(possible))
            chosen = random.Random(f"{options.seed} {module}").sample(possible, count)
            alive = survivors(module, chosen, trees)
            share = 1 - len(alive) / count
            short |= share < options.floor
            missed.extend(shown(module, mutant) for mutant in alive)
            print(f"{module:30} {count:7} {count - len(alive):6} {share:6.0%}", flush=True)
    if missed:
        print("\nsurvivors:", *missed, sep="\n\n")
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
