"""What the garbage collector of kube-controller-manager does for tests: that program is not among setup-envtest's.

See https://kubernetes.io/docs/concepts/architecture/garbage-collection/.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from kubernetes_api.store import ApiError, Change, Object, Resource

from api_server.admin_client import AdminClient

FOREGROUND = "foregroundDeletion"


class GarbageCollector:
    """Removes what belongs to objects that are gone, and what waits for its own to go."""

    def __init__(
        self, admin: AdminClient, resources: Callable[[], Iterable[Resource]], watched: list[Resource]
    ) -> None:
        """Prepares one.

        Args:
            admin: To the API.
            resources: All kinds that are served by now.
            watched: The kinds that own or are owned.
        """
        self._admin, self._resources, self._watched = admin, resources, watched
        self._known: dict[str, tuple[Resource, Object]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for resource in self._watched:
            threading.Thread(target=self._follow, args=(resource,), daemon=True).start()
        try:
            yield
        finally:
            self._over.set()

    def _follow(self, resource: Resource) -> None:
        for change in self._admin.watch(resource, self._over.is_set):
            with self._lock:
                self._take(change)

    def _take(self, change: Change) -> None:
        uid = change.item["metadata"]["uid"]
        if change.type == "DELETED":
            self._known.pop(uid, None)
            for resource, dependent in self._dependents(uid):
                self._collect(resource, dependent)
            for resource, owner in list(self._known.values()):
                if _names(change.item, owner["metadata"]["uid"]):
                    self._finish(resource, owner)
            return
        self._known[uid] = (change.resource, change.item)
        self._collect(change.resource, change.item)
        self._finish(change.resource, change.item)

    def _collect(self, resource: Resource, item: Object) -> None:
        """Removes an object of whose owners none is there."""
        owners = item["metadata"].get("ownerReferences", [])
        if owners and not any(self._is_there(item["metadata"].get("namespace", ""), owner) for owner in owners):
            self._admin.delete(resource, item)

    def _finish(self, resource: Resource, item: Object) -> None:
        """Lets an object go that waits for its own, once these are gone; tells them to go before."""
        metadata = item["metadata"]
        if "deletionTimestamp" not in metadata or FOREGROUND not in metadata.get("finalizers", []):
            return
        dependents = self._dependents(metadata["uid"])
        for kind, dependent in dependents:
            if "deletionTimestamp" not in dependent["metadata"]:
                self._admin.delete(kind, dependent)
        if not dependents:
            self._admin.set_finalizers(resource, item, [name for name in metadata["finalizers"] if name != FOREGROUND])

    def _dependents(self, uid: str) -> list[tuple[Resource, Object]]:
        return [known for known in self._known.values() if _names(known[1], uid)]

    def _is_there(self, namespace: str, owner: Object) -> bool:
        if owner["uid"] in self._known:
            return True
        group, _, version = owner["apiVersion"].rpartition("/")
        kinds = (
            kind
            for kind in self._resources()
            if (kind.group, kind.version, kind.kind) == (group, version, owner["kind"])
        )
        kind = next(kinds, None)
        try:
            return kind is None or self._admin.get(kind, namespace, owner["name"])["metadata"]["uid"] == owner["uid"]
        except ApiError as error:
            return error.code != 404


def _names(item: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", []))
