"""malloc settings that keep freed memory, for processes that allocate and free large arrays again and again.

By default glibc returns such memory to the system after each use, and every page costs a fault when it is allocated
again: up to 30 microseconds for 4 KiB on a virtual machine whose host takes free pages back. Reading a study of 500
slices takes 25,000 such pages; a training step of DenseNet-121 on 16 slices takes 120,000, a tenth to a fifth of its
time. Other C libraries are not changed.
"""

import ctypes

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1
"""From glibc's malloc.h."""
_NEVER = 2**31 - 1

KEEPING_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(_NEVER),
}
"""The same settings for a process that starts later. Needed if another thread than the first does the work: each thread
has its own arena, and those return their memory whatever `mallopt` is set to."""


def keep_memory() -> None:
    """Make this process keep the memory that it frees. Call it from the first thread."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
