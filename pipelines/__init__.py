"""Pipelines assembled from the components."""
