"""What a test does on the cluster's side of an API, a real one or ours: it plays operators, kubelets, other users."""

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from kubernetes_api.store import Change, Object, Resource

NAMESPACE = "kubeflow"


class Cluster(ABC):
    """Everything here may be done to both; what only ours can be made to do is a `fake_api` test's.

    Attributes:
        token: The client's.
        admin_token: That of a user who may do everything.
        admission: What webhooks of operators say against a new or changed object of theirs, or nothing:
            `"WEBHOOK" denied the request: WHY`.
        requests: Verb and path of the client's requests so far.
    """

    token: str
    admin_token: str
    admission: list[Callable[[Resource, Object], str | None]]
    requests: list[tuple[str, str]]

    @property
    @abstractmethod
    def url(self) -> str:
        """The API's address."""

    @abstractmethod
    def create(self, item: Object, namespace: str = NAMESPACE) -> Object:
        """Makes an object, with its status."""

    @abstractmethod
    def get(self, plural: str, name: str, namespace: str = NAMESPACE) -> Object: ...

    @abstractmethod
    def objects(self, plural: str, namespace: str = NAMESPACE, labels: str = "") -> list[Object]: ...

    @abstractmethod
    def update(
        self, plural: str, name: str, change: Callable[[Object], Object], namespace: str = NAMESPACE, part: str = "all"
    ) -> Object:
        """Changes an object; `part` is `status` for the status alone."""

    @abstractmethod
    def delete(self, plural: str, name: str, namespace: str = NAMESPACE) -> None:
        """Removes an object; it is gone when this returns, but for one with finalizers."""

    @abstractmethod
    def bind(self, pod: str, node: str, namespace: str = NAMESPACE) -> None:
        """Puts a pod on a node, as the scheduler does."""

    @abstractmethod
    def write_log(self, pod: str, text: str, namespace: str = NAMESPACE) -> None:
        """Lets a pod print."""

    @abstractmethod
    def changes(self, plural: str, is_over: Callable[[], bool]) -> Iterator[Change]:
        """All objects of a kind, and then each change, until it is over."""

    @contextlib.contextmanager
    def controller(self, plural: str, act: Callable[[Change], None]) -> Iterator[None]:
        """Lets a function act on every change of a kind of object, in a thread, as a controller does."""
        over, errors = threading.Event(), []

        def run() -> None:
            for change in self.changes(plural, over.is_set):
                try:
                    act(change)
                except Exception as error:
                    errors.append(error)
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5)
        if errors:
            raise errors[0]

    @abstractmethod
    def forbid(self, verb: str = "", plural: str = "", sub: str = "") -> None:
        """Takes a permission of the client away; empty fields stand for all."""

    @abstractmethod
    def token_of_user(self, rights: dict[str, list[str]]) -> str:
        """The token of somebody who has these rights alone: verbs by the resources of the core API group."""

    def set_status(self, plural: str, name: str, status: Object, namespace: str = NAMESPACE) -> Object:
        return self.update(plural, name, lambda item: {**item, "status": status}, namespace, "status")

    def add_event(self, plural: str, name: str, reason: str, message: str, namespace: str = NAMESPACE) -> None:
        """Adds a Warning about an object."""
        item = self.get(plural, name, namespace)
        about = {"kind": item["kind"], "name": name, "namespace": namespace, "uid": item["metadata"]["uid"]}
        self.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{name}."},
                "involvedObject": about,
                "reason": reason,
                "message": message,
                "type": "Warning",
                "lastTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            namespace,
        )

    @abstractmethod
    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Waits until a condition holds; returns its value.

        Raises:
            TimeoutError: When it does not in time.
        """

    def write_kubeconfig(self, path: Path, namespace: str = NAMESPACE, token: str = "") -> Path:
        """Writes a kubeconfig for clients, in this process or another: the client's own, or with another token."""
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": self.url, **self._trusted()}}],
                    "users": [{"name": "test", "user": {"token": token or self.token}}],
                    "contexts": [
                        {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
                    ],
                }
            )
        )
        return path

    def _trusted(self) -> dict[str, str]:
        """The kubeconfig's words for the authority behind the server's certificate."""
        return {}
