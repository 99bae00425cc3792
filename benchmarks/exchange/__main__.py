"""Runs the benchmark; what its processes run has to be in a module with a name of its own."""

from benchmarks.exchange.run import main

main()
