"""Kubeflow Pipelines components for distributed image classification: one package a stage."""
