"""Cluster: what a step knows of the cluster on which it runs: its API, its volume, its permissions, its images."""
