"""Worker: the program of each worker of a training job; `python -m` of this package runs it."""
