"""Cluster: a run submitted to Kubeflow Pipelines and followed there, and the checks of a cluster before it."""
