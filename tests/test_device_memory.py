"""The peak of what fitted, and the words for what did not."""

import pytest

from sweeper.engines.device_memory import PeakMemory, shortage

H200 = (
    "CUDA out of memory. Tried to allocate 32.00 GiB. GPU 0 has a total capacity of 139.80 GiB of "
    "which 10.94 GiB is free. Including non-PyTorch memory, this process has 128.85 GiB memory in "
    "use. Of the allocated memory 88.05 GiB is allocated by PyTorch, and 40.13 GiB is reserved by "
    "PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation"
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 1125899906842624 bytes. Error code 12 (Cannot allocate memory)"
)


class Allocator:
    """Counts as torch's does: the most since a reset, which begins at what is held."""

    def __init__(self) -> None:
        self.held = self.peak = 0

    def work(self, more: int) -> None:
        self.peak = max(self.peak, self.held + more)

    def reset(self) -> None:
        self.peak = self.held


def test_a_batch_that_did_not_fit_is_no_peak() -> None:
    allocator = Allocator()
    peak = PeakMemory(lambda: allocator.peak, allocator.reset)
    allocator.held = 16
    peak.forget()
    peak.keep()
    assert peak.most_bytes == 16
    allocator.work(2)
    peak.keep()
    allocator.work(120)
    peak.forget()
    assert peak.most_bytes == 18
    allocator.work(1)
    peak.keep()
    assert peak.most_bytes == 18
    allocator.work(5)
    peak.keep()
    assert peak.most_bytes == 21


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError(H200),
            (
                "Tried to allocate 32.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which "
                "10.94 GiB is free"
            ),
        ),
        (RuntimeError(CPU), CPU.partition(". Error")[0]),
        (MemoryError(), "MemoryError"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
    ],
)
def test_a_shortage_is_told_without_advice(error: Exception, told: str | None) -> None:
    assert shortage(error) == (str(error) if told is None else told)
