"""How libraries say that there is no kernel for what was asked (pure)."""

SIGNS = (
    "no kernel image is available",
    "invalid device function",
    "not implemented for '",
    "Could not run '",
    "No available kernel",
    "No valid attention backend",
    "CUBLAS_STATUS_NOT_SUPPORTED",
    "CUDNN_STATUS_NOT_SUPPORTED",
)
"""CUDA's errors 209 and 98; torch's dispatcher, by dtype and by backend; its attention; vLLM's
choice of an attention backend; cuBLAS and cuDNN."""


def no_kernel(said: str) -> bool:
    """Whether an error says so: the combination is impossible here, in whatever attempt."""
    return any(sign in said for sign in SIGNS)
