"""The device that torch computes on, its threads and its memory."""

import gc
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from sweeper.engines.device_memory import shortage
from sweeper.engines.kernels import no_kernel
from sweeper.errors import EngineError, Infeasible, SweeperError

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's allocators and libraries say beside `OutOfMemoryError`."""
Made = TypeVar("Made")


def claim(devices: Sequence[str]) -> Any:
    """The torch device that is exactly the leased GPU; the CPU where there is none.

    Raises:
        EngineError: torch sees no GPU, or others than those.
    """
    if not devices:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineError(f"leased {', '.join(devices)}, but torch {torch.__version__} sees no GPU")
    seen = [
        f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        for index in range(torch.cuda.device_count())
    ]
    if sorted(seen) != sorted(devices):
        raise EngineError(f"leased {', '.join(devices)}, but torch sees {', '.join(seen)}")
    return torch.device("cuda", 0)


def threads() -> int:
    """Every CPU this process may use, or as many as `OMP_NUM_THREADS` says."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(stated) if stated.isdecimal() else len(os.sched_getaffinity(0))


def within_memory(make: Callable[[], Made]) -> Made:
    """What `make` returns.

    Raises:
        Infeasible: memory ran out, or there is no kernel; what was taken is free again.
        EngineError: anything else that went wrong.
    """
    try:
        return make()
    except SweeperError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip()
        exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
            sign in text for sign in OUT_OF_MEMORY
        )
        if exhausted:
            reason = f"out of memory: {shortage(error)}"
        elif no_kernel(text):
            reason = f"no kernel: {text.partition(chr(10))[0]}"
        else:
            raise EngineError(text) from error
    # Outside the handler, so that the frames of the failed call, and their tensors, are gone.
    free_caches()
    raise Infeasible(reason)


def free_caches() -> None:
    """Return what nobody refers to any more to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
