"""vLLM's processes: what they start with, what they said, and that they are gone."""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]

from sweeper.engines.kernels import no_kernel
from sweeper.errors import EngineError, Infeasible, SweeperError

SHUT_DOWN_S = 10.0
"""How long the thread that reads of vLLM's processes may take to end with them."""
PATIENCE_S = 20.0
"""How long processes that were asked to end may take before they are killed."""
SAID_BYTES = 1 << 20
"""How much of the end of what was said is looked at."""
MEMORY = re.compile(
    r"(No available memory for the cache blocks"
    r"|cache is needed, which is larger than the available"
    r"|out of memory"
    r"|OutOfMemoryError"
    r"|can't allocate memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED)"
)
"""What vLLM and torch say when weights, activations or KV cache do not fit."""
TAKEN = re.compile(r"Free memory on device .* is less than desired")
"""Said where somebody else holds memory of the GPU: no property of the configuration."""
ERROR = re.compile(r"\b\w*(Error|Exception)\b: .+")
Made = TypeVar("Made")


class Said:
    """What this process and its children print from now on, where it goes into a file.

    vLLM tells the process that starts it only that something failed; why is in its log.
    """

    def __init__(self) -> None:
        self._from = os.lseek(1, 0, os.SEEK_END) if _is_file(1) else None

    def out_of_memory(self) -> str | None:
        """The line that says that memory did not suffice, if there is one."""
        lines = self._lines()
        if any(TAKEN.search(line) for line in lines):
            return None
        return next((line for line in lines if MEMORY.search(line)), None)

    def last_error(self) -> str:
        """The first error that was printed: later ones follow from it."""
        return next((line for line in self._lines() if ERROR.search(line)), "nothing")

    def _lines(self) -> list[str]:
        if self._from is None:
            return []
        with open("/proc/self/fd/1", "rb") as file:  # noqa: PTH123
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._from, size - SAID_BYTES))
            return file.read().decode(errors="replace").splitlines()


def started_since(before: Collection[Any]) -> Sequence[Any]:
    """Descendants of this process that are not among `before`."""
    now = psutil.Process().children(recursive=True)
    return [process for process in now if process not in before and not _is_pythons(process)]


def end(processes: Sequence[Any]) -> None:
    """Return when they are gone; those that take too long are killed."""
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=PATIENCE_S)


def shut_down(core: Any) -> None:
    """End vLLM's processes, then the context of the sockets to them, which vLLM leaves open."""
    core.shutdown()
    core.output_queue_thread.join(SHUT_DOWN_S)
    if not core.output_queue_thread.is_alive():
        core.ctx.destroy(linger=0)


@contextmanager
def inherited(variables: Mapping[str, str]) -> Iterator[None]:
    """This process's variables while vLLM starts, as its processes inherit them; vLLM adds some."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def explained(make: Callable[[], Made], said: Said | None = None) -> Made:
    """What `make` returns.

    Raises:
        Infeasible: vLLM refuses the combination, its processes ran out of memory or have no kernel.
        EngineError: anything else that went wrong.
    """
    try:
        return make()
    except SweeperError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip()
        if said is not None:
            out_of_memory = said.out_of_memory()
            if out_of_memory is not None:
                raise Infeasible(f"out of memory: {out_of_memory}") from error
            of_hub = type(error).__module__.startswith("huggingface_hub")
            if isinstance(error, ValueError | NotImplementedError | TypeError) and not of_hub:
                raise Infeasible(f"vLLM refuses the combination: {text}") from error
            text = f"{text}; its processes said: {said.last_error()}"
        if no_kernel(text):
            raise Infeasible(f"no kernel: {text}") from error
        raise EngineError(text) from error


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _is_pythons(process: Any) -> bool:
    """Whether it is the resource tracker of this process, which outlives what it tracks."""
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return True
