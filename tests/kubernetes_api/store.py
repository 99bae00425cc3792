"""The state behind the API: objects, their versions, their history, and the garbage collection of what they own."""

import copy
import datetime
import itertools
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubernetes_api.selectors import matches_fields, matches_labels

Object = dict[str, Any]
Key = tuple[str, str, str, str]
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")


class ApiError(Exception):
    """A Status in place of an answer."""

    def __init__(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.headers = code, reason, message, headers or {}

    def status(self) -> Object:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "reason": self.reason,
            "message": self.message,
            "code": self.code,
        }


@dataclass(frozen=True)
class Resource:
    """A kind of object as the API serves it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    has_status: bool = False
    is_custom: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True)
class Change:
    """One change of one object; `type` is ADDED, MODIFIED or DELETED."""

    version: int
    type: str
    resource: Resource
    item: Object
    previous: Object | None


class Store:
    """Objects by group, plural, namespace and name. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Key, tuple[Resource, Object]] = {}
        self._changes: list[Change] = []
        self._versions = itertools.count(1000)
        self._version = 999
        self._oldest = 999

    @property
    def version(self) -> str:
        return str(self._version)

    def create(self, resource: Resource, namespace: str, item: Object) -> Object:
        item = copy.deepcopy(item)
        with self.changed:
            metadata = item.setdefault("metadata", {})
            if not metadata.get("name") and metadata.get("generateName"):
                metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
            name = metadata.get("name", "")
            longest = 253
            if not _NAME.match(name) or len(name) > longest:
                raise ApiError(
                    422,
                    "Invalid",
                    f'{resource.kind}.{resource.group} "{name}" is invalid: metadata.name: Invalid value: "{name}"',
                )
            key = self._key(resource, namespace, name)
            if key in self._objects:
                raise ApiError(409, "AlreadyExists", f'{resource.full_name} "{name}" already exists')
            metadata.update(
                uid=str(uuid.uuid4()),
                creationTimestamp=_now(),
                generation=1,
                **({"namespace": namespace} if resource.namespaced else {}),
            )
            metadata.pop("resourceVersion", None)
            metadata.pop("deletionTimestamp", None)
            item["apiVersion"], item["kind"] = resource.api_version, resource.kind
            stored = self._put(key, resource, item, "ADDED")
            self._collect_garbage()
            return stored

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        with self.changed:
            found = self._objects.get(self._key(resource, namespace, name))
            if found is None:
                raise ApiError(404, "NotFound", f'{resource.full_name} "{name}" not found')
            return copy.deepcopy(found[1])

    def items(self, resource: Resource, namespace: str, labels: str = "", fields: str = "") -> list[Object]:
        """Lists one namespace, or all with an empty `namespace`."""
        with self.changed:
            return [
                copy.deepcopy(item)
                for key, (_, item) in sorted(self._objects.items(), key=lambda entry: entry[0])
                if key[:2] == (resource.group, resource.plural) and _selected(item, resource, namespace, labels, fields)
            ]

    def view(self, resource: Resource) -> list[Object]:
        """All objects of a kind, not copied: to be read only. Definitions of custom resources are large."""
        with self.changed:
            return [item for known, item in self._objects.values() if known is resource]

    def change(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
        part: str = "",
    ) -> Object:
        """Changes an object; `part` is `status` for the subresource, empty for all the rest, `all` for both."""
        with self.changed:
            before = self.get(resource, namespace, name)
            asked = change(copy.deepcopy(before))
            expected = asked.get("metadata", {}).get("resourceVersion")
            if expected is not None and expected != before["metadata"]["resourceVersion"]:
                raise ApiError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource.full_name} "{name}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            if asked["metadata"].get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
                raise ApiError(409, "Conflict", f"Precondition failed: UID in precondition: {asked['metadata']['uid']}")
            after = copy.deepcopy(before) if part == "status" else copy.deepcopy(asked)
            if part == "status":
                after["status"] = asked.get("status", {})
            elif part == "" and resource.has_status:
                after.pop("status", None)
                if "status" in before:
                    after["status"] = before["status"]
            kept = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "name", "namespace")
            after["metadata"] |= {field: before["metadata"][field] for field in kept if field in before["metadata"]}
            after["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            if after == before:
                return before
            if after.get("spec") != before.get("spec"):
                after["metadata"]["generation"] += 1
            key = self._key(resource, namespace, name)
            if "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
                return self._remove(key)
            return self._put(key, resource, after, "MODIFIED")

    def delete(
        self, resource: Resource, namespace: str, name: str, policy: str = "Background", uid: str | None = None
    ) -> Object:
        with self.changed:
            item = self.get(resource, namespace, name)
            if uid and uid != item["metadata"]["uid"]:
                raise ApiError(409, "Conflict", f"Precondition failed: UID in precondition: {uid}")
            key = self._key(resource, namespace, name)
            if policy == "Foreground" and self._dependents(item["metadata"]["uid"]):
                item["metadata"].setdefault("finalizers", []).append("foregroundDeletion")
            if policy == "Orphan":
                self._orphan(item["metadata"]["uid"])
            if item["metadata"].get("finalizers"):
                item["metadata"].setdefault("deletionTimestamp", _now())
                if resource.kind == "Pod":
                    item["metadata"].setdefault("deletionGracePeriodSeconds", 0)
                stored = self._put(key, resource, item, "MODIFIED")
                if "foregroundDeletion" in item["metadata"]["finalizers"]:
                    for dependent in self._dependents(item["metadata"]["uid"]):
                        self._delete_key(dependent)
                return stored
            if resource.full_name == "pods":  # told to go first: podStrategy's CheckGracefulDelete in Kubernetes
                item["metadata"].update(deletionTimestamp=_now(), deletionGracePeriodSeconds=0)
                self._put(key, resource, item, "MODIFIED")
            return self._remove(key)

    def forget_history(self) -> None:
        """Watches from any version seen so far get 410 Gone from now on, as after a compaction of etcd."""
        with self.changed:
            self._changes.clear()
            self._version = self._oldest = next(self._versions)

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        version: str = "",
        labels: str = "",
        fields: str = "",
        is_over: Callable[[], bool] = lambda: False,
    ) -> Iterator[Change | None]:
        """Yields changes after a version, and None at every pause of a moment; without one, all objects first.

        Raises:
            ApiError: 410 when the version is forgotten.
        """
        with self.changed:
            if version in ("", "0"):
                first = [
                    Change(int(item["metadata"]["resourceVersion"]), "ADDED", resource, item, None)
                    for item in self.items(resource, namespace, labels, fields)
                ]
                seen = self._version
            else:
                first, seen = [], int(version)
        yield from first
        while not is_over():
            with self.changed:
                if seen < self._oldest:
                    raise ApiError(410, "Expired", f"too old resource version: {seen} ({self._oldest})")
                fresh = [change for change in self._changes if change.version > seen]
                if not fresh:
                    self.changed.wait(0.05)
                    fresh = [change for change in self._changes if change.version > seen]
            for change in fresh:
                seen = change.version
                if (change.resource.group, change.resource.plural) == (resource.group, resource.plural):
                    told = _as_seen(change, resource, namespace, labels, fields)
                    if told:
                        yield told
            if not fresh:
                yield None

    def _put(self, key: Key, resource: Resource, item: Object, kind_of_change: str) -> Object:
        previous = self._objects.get(key)
        self._version = next(self._versions)
        item["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = (resource, item)
        self._note(Change(self._version, kind_of_change, resource, item, previous[1] if previous else None))
        return copy.deepcopy(item)

    def _remove(self, key: Key) -> Object:
        resource, item = self._objects.pop(key)
        item = copy.deepcopy(item)
        self._version = next(self._versions)
        item["metadata"]["resourceVersion"] = str(self._version)
        self._note(Change(self._version, "DELETED", resource, item, item))
        self._collect_garbage()
        return item

    def _note(self, change: Change) -> None:
        self._changes.append(change)
        self.changed.notify_all()

    def _collect_garbage(self) -> None:
        living = {item["metadata"]["uid"] for _, item in self._objects.values()}
        for key, (_, item) in list(self._objects.items()):
            owners = item["metadata"].get("ownerReferences", [])
            if owners and not any(owner.get("uid") in living for owner in owners) and key in self._objects:
                self._delete_key(key)
        for key, (resource, item) in list(self._objects.items()):
            finalizers = item["metadata"].get("finalizers", [])
            waits = "foregroundDeletion" in finalizers and "deletionTimestamp" in item["metadata"]
            if waits and not self._dependents(item["metadata"]["uid"]) and key in self._objects:
                self.change(resource, key[2], key[3], _without_foreground_deletion, "all")

    def _delete_key(self, key: Key) -> None:
        if key in self._objects and "deletionTimestamp" not in self._objects[key][1]["metadata"]:
            self.delete(self._objects[key][0], key[2], key[3])

    def _dependents(self, uid: str) -> list[Key]:
        return [
            key
            for key, (_, item) in self._objects.items()
            if any(owner.get("uid") == uid for owner in item["metadata"].get("ownerReferences", []))
        ]

    def _orphan(self, uid: str) -> None:
        for key in self._dependents(uid):
            resource, item = self._objects[key]
            item = copy.deepcopy(item)
            owners = item["metadata"]["ownerReferences"]
            item["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
            self._put(key, resource, item, "MODIFIED")

    @staticmethod
    def _key(resource: Resource, namespace: str, name: str) -> Key:
        return resource.group, resource.plural, namespace if resource.namespaced else "", name


def _without_foreground_deletion(item: Object) -> Object:
    item["metadata"]["finalizers"].remove("foregroundDeletion")
    return item


def _selected(item: Object | None, resource: Resource, namespace: str, labels: str, fields: str) -> bool:
    if item is None:
        return False
    own = item["metadata"].get("namespace", "")
    return (
        (not namespace or not resource.namespaced or own == namespace)
        and matches_labels(labels, item["metadata"].get("labels", {}))
        and matches_fields(fields, item)
    )


def _as_seen(change: Change, resource: Resource, namespace: str, labels: str, fields: str) -> Change | None:
    """A change as a watch with selectors tells it: an object that comes to match is ADDED, one that ceases, DELETED."""
    was = _selected(change.previous, resource, namespace, labels, fields)
    matches = _selected(change.item, resource, namespace, labels, fields)
    if change.type == "DELETED" or not (was and matches):
        if not was and not matches:
            return None
        gone = change.type == "DELETED" or not matches
        return Change(change.version, "DELETED" if gone else "ADDED", change.resource, change.item, change.previous)
    return change


def _now() -> str:
    return datetime.datetime.fromtimestamp(time.time(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
