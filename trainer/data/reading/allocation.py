"""How processes that read Parquet should allocate memory: environment variables, which are read when one starts.

Decoding Parquet and gathering batches reserve and free large buffers all the time. Arrow's allocator (mimalloc) and
glibc would give their pages back to the kernel and fault them in again. On one machine that made decoding 1.3 to 1.45
times slower, on one with transparent huge pages 1.0 to 1.1 times. Resident memory stays at its peak instead.
"""

ALLOCATION = {
    "MIMALLOC_PURGE_DELAY": "-1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}
