"""What libraries say where there is no kernel, word for word, and what is something else."""

import pytest

from sweeper.engines.kernels import no_kernel


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("CUDA error: no kernel image is available for execution on the device", True),
        ("NotImplementedError: \"addmm_impl_cpu_\" not implemented for 'Bool'", True),
        (
            "Could not run 'aten::_scaled_mm' with arguments from the 'CPU' backend. This could",
            True,
        ),
        ("RuntimeError: No available kernel. Aborting execution.", True),
        ("ValueError: No valid attention backend found for NVIDIA A100 with {}", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA error: out of memory", False),
        ("EngineDeadError: EngineCore encountered an issue", False),
    ],
)
def test_a_missing_kernel_is_known_by_its_words(said: str, found: bool) -> None:
    assert no_kernel(said) is found
