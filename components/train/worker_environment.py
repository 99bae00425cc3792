"""What every worker's process is told by its environment, whatever runs it."""

WORKER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # TensorFlow would look for Google's metadata server.
    "NO_GCE_CHECK": "true",
    # Else glibc gives large tensors' memory back and takes it anew, page by page, in every step.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**22),
    # Else each of a hundred threads may keep its own share of what was freed: 100 MB of a streamed training.
    "MALLOC_ARENA_MAX": "2",
}
