"""The API of Kubeflow Pipelines (v2beta1) over HTTP on loopback, with a state, for tests of what submits runs."""

from kfp_api.server import KfpApi

__all__ = ["KfpApi"]
