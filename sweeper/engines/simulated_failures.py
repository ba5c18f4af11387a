"""Failures of a simulated engine, on request."""

import os
import signal
import time
from typing import NoReturn

from sweeper.engines.simulated_options import Fail, FailAt, SimulatedOptions
from sweeper.errors import EngineError, Infeasible

LEAK_STEP_BYTES, LEAK_BYTES = 2**25, 3 * 2**30


def fail_on_request(options: SimulatedOptions, at: FailAt, size: int | None) -> None:
    """Fail as `options.fail` asks, if it does for `at` and batches of `size` in this attempt.

    Raises:
        Infeasible: an `oom`.
        EngineError: an `error`, or a `crash` of an engine without a process of its own.
    """
    fail = options.fail
    if fail is None or fail.at != at:
        return
    if fail.batch_size is not None and size is not None and fail.batch_size != size:
        return
    if fail.attempts is None or options.attempt < fail.attempts:
        _fail(fail, isolated=options.isolated)


def _leak() -> NoReturn:
    """Take memory until somebody ends it, and never more than `LEAK_BYTES`."""
    held: list[bytes] = []
    while True:
        if len(held) * LEAK_STEP_BYTES < LEAK_BYTES:
            held.append(b"\1" * LEAK_STEP_BYTES)
        time.sleep(0.02)


def _fail(fail: Fail, *, isolated: bool) -> NoReturn:
    asked = f"at {fail.at}, as engine.options.fail asks"
    if fail.kind == "oom":
        raise Infeasible(f"out of memory {asked}")
    if fail.kind == "hang":
        while True:
            time.sleep(3600.0)
    if fail.kind == "leak":
        _leak()
    if fail.kind == "crash" and isolated:
        os.kill(os.getpid(), signal.SIGKILL)
    raise EngineError(f"{fail.kind} {asked}")
