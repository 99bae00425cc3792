"""Custom resources: their definitions, and the checks of objects against the definitions' schemas."""

import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from repository import SHARED
from skips import Need, skip_unless

# The real definitions, where they are there; objects are then checked as a real server checks them.
REAL_CRDS = Path(os.environ.get("CRDS_DIR") or SHARED / "crds")
needs_definitions = skip_unless(REAL_CRDS.is_dir(), Need.DEFINITIONS, f"there are none in CRDS_DIR ({REAL_CRDS})")
_WITHOUT_SCHEMA = [
    ("kubeflow.org", "v1", "tfjobs", "TFJob", "Namespaced"),
    ("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob", "Namespaced"),
    ("trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes", "ClusterTrainingRuntime", "Cluster"),
    ("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", "Namespaced"),
    ("serving.kserve.io", "v1beta1", "inferenceservices", "InferenceService", "Namespaced"),
    ("serving.kserve.io", "v1alpha1", "servingruntimes", "ServingRuntime", "Namespaced"),
    ("serving.kserve.io", "v1alpha1", "clusterservingruntimes", "ClusterServingRuntime", "Cluster"),
]


class _Constant(dict[str, Any]):
    """Never copied: a schema can have two megabytes, and nobody changes it."""

    def __deepcopy__(self, memo: object) -> "_Constant":
        return self


@functools.cache
def definitions() -> list[dict[str, Any]]:
    """All definitions, the real ones where they are there, others without a schema."""
    found = {}
    for group, version, plural, kind, scope in _WITHOUT_SCHEMA:
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        found[f"{plural}.{group}"] = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "names": {"plural": plural, "kind": kind, "singular": kind.lower()},
                "scope": scope,
                "versions": [
                    {"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
                ],
            },
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        }
    for path in REAL_CRDS.glob("*.yaml") if REAL_CRDS.is_dir() else []:
        real = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for version in real["spec"]["versions"]:
            version["schema"] = _Constant(version["schema"])
        found[real["metadata"]["name"]] = {
            **real,
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        }
    return list(found.values())


def schema_errors(schema: dict[str, Any], item: dict[str, Any]) -> list[str]:
    """What is wrong with an object, in the words of a Kubernetes API server, or nearly so."""
    validator = jsonschema.Draft7Validator(schema)
    return [
        f"{'.'.join(map(str, error.absolute_path)) or '<root>'}: Invalid value: {error.message[:300]}"
        for error in validator.iter_errors(item)
    ]


def unknown_fields(schema: dict[str, Any], item: Any, path: str = "") -> list[tuple[str, dict[str, Any], str]]:
    """Fields that the schema does not know: their path, the object that holds them, and their name there."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource"):
        return []
    found = []
    if isinstance(item, list) and "items" in schema:
        for index, element in enumerate(item):
            found += unknown_fields(schema["items"], element, f"{path}[{index}]")
    if isinstance(item, dict):
        others = schema.get("additionalProperties")
        known = dict(schema.get("properties", {}))
        if not path:
            known |= {"apiVersion": {}, "kind": {}, "metadata": {"x-kubernetes-preserve-unknown-fields": True}}
        for name, value in item.items():
            at = f"{path}.{name}" if path else name
            if name in known:
                found += unknown_fields(known[name], value, at)
            elif isinstance(others, dict):
                found += unknown_fields(others, value, at)
            elif not others and "properties" in schema:
                found.append((at, item, name))
    return found
