"""Server: the model server, a program of its own that answers KServe's protocols; `python -m` of it runs it."""
