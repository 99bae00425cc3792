"""Runner: the command line that compiles the pipelines, and runs them here or on a cluster."""
