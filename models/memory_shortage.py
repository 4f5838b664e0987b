"""What errors say that a device's memory is full: Python's, torch's, the driver's and those of CUDA's libraries."""

import torch

# On CPUs, from the driver and the libraries they come as plain RuntimeErrors.
_WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def short_of_memory(error: BaseException) -> bool:
    """Whether that is why something failed, or why what has failed over it did."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError | torch.OutOfMemoryError) or any(words in str(cause) for words in _WORDS):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
