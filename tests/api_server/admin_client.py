"""The API as an administrator uses it, in plain JSON: for operators, kubelets and other users that tests play."""

import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
from kubernetes_api.store import ApiError, Change, Object, Resource

REQUEST_SECONDS = 30.0
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
# How long a watch may be silent before it is asked whether it is over.
SILENCE_SECONDS = 0.3


class AdminClient:
    """May be used from any thread."""

    def __init__(self, url: str, certificate: Path, token: str) -> None:
        self._client = httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cafile=str(certificate)),
            headers={"Authorization": f"Bearer {token}"},
            timeout=REQUEST_SECONDS,
            limits=httpx.Limits(max_connections=None, keepalive_expiry=60),
        )

    def close(self) -> None:
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, content_type: str = "", **query: str) -> Object:
        """Sends one request.

        Raises:
            ApiError: When it is refused.
        """
        headers = {"Content-Type": content_type or "application/json"} if body is not None else {}
        content = json.dumps(body) if body is not None else None
        answer = self._client.request(method, path, content=content, headers=headers, params=query)
        if answer.is_error:
            raise _error(answer)
        answered: Object = answer.json()
        return answered

    def served(self) -> set[tuple[str, str, str]]:
        """Group, version and plural of all kinds, as the two ways of finding out agree; kubectl takes the newer one."""
        newer = self._newer()
        return newer & self._older({(group, version) for group, version, _ in newer if "." in group})

    def found(self) -> set[tuple[str, str, str]]:
        """Group, version and plural of all kinds that one of the ways finds, or both."""
        groups = self.ask("GET", "/apis")["groups"]
        versions = {(group["name"], version["version"]) for group in groups for version in group["versions"]}
        return self._newer() | self._older(versions)

    def _newer(self) -> set[tuple[str, str, str]]:
        return {
            (group["metadata"]["name"], version["version"], resource["resource"])
            for group in self._client.get("/apis", headers={"Accept": AGGREGATED}).json()["items"]
            for version in group["versions"]
            for resource in version.get("resources", [])
        }

    def _older(self, versions: set[tuple[str, str]]) -> set[tuple[str, str, str]]:
        return {
            (group, version, resource["name"])
            for group, version in versions
            for resource in self.ask("GET", f"/apis/{group}/{version}")["resources"]
        }

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return self.ask("GET", path(resource, namespace, name))

    def items(self, resource: Resource, namespace: str = "", labels: str = "") -> list[Object]:
        """Lists one namespace, or all with an empty `namespace`."""
        query = {"labelSelector": labels} if labels else {}
        return _with_kind(resource, self.ask("GET", path(resource, namespace), **query)["items"])

    def delete(self, resource: Resource, item: Object, seconds: int | None = None) -> None:
        """Deletes an object, this very one, and not one that took its name; does nothing when it is gone."""
        metadata = item["metadata"]
        options: Object = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        if seconds is not None:
            options["gracePeriodSeconds"] = seconds
        try:
            self.ask("DELETE", path(resource, metadata.get("namespace", ""), metadata["name"]), options)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def set_finalizers(self, resource: Resource, item: Object, finalizers: list[str]) -> None:
        metadata = item["metadata"]
        patch = {"metadata": {"uid": metadata["uid"], "finalizers": finalizers}}
        try:
            self.ask(
                "PATCH",
                path(resource, metadata.get("namespace", ""), metadata["name"]),
                patch,
                "application/merge-patch+json",
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def watch(self, resource: Resource, is_over: Callable[[], bool]) -> Iterator[Change]:
        """All objects of a kind, in all namespaces, and then each change, until it is over."""
        while not is_over():
            try:
                listed = self.ask("GET", path(resource))
                version = listed["metadata"]["resourceVersion"]
                for item in _with_kind(resource, listed["items"]):
                    yield Change(0, "ADDED", resource, item, None)
                yield from self._changes(resource, version, is_over)
            except (ApiError, httpx.TransportError):
                time.sleep(SILENCE_SECONDS)  # the kind was taken away, or the server is going

    def _changes(self, resource: Resource, version: str, is_over: Callable[[], bool]) -> Iterator[Change]:
        timeout = httpx.Timeout(REQUEST_SECONDS, read=SILENCE_SECONDS)
        while not is_over():
            query = {"watch": "true", "resourceVersion": version}
            try:
                with self._client.stream("GET", path(resource), params=query, timeout=timeout) as answer:
                    if answer.is_error:
                        answer.read()
                        raise _error(answer)
                    for line in answer.iter_lines():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise ApiError(event["object"]["code"], "Expired", event["object"]["message"])
                        version = event["object"]["metadata"]["resourceVersion"]
                        yield Change(0, event["type"], resource, event["object"], None)
                        if is_over():
                            return
            except httpx.ReadTimeout:
                continue


def path(resource: Resource, namespace: str = "", name: str = "", sub: str = "") -> str:
    start = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    where = f"/namespaces/{namespace}" if resource.namespaced and namespace else ""
    return start + where + f"/{resource.plural}" + "".join(f"/{part}" for part in (name, sub) if part)


def _with_kind(resource: Resource, items: Iterable[Object] | None) -> list[Object]:
    """Lists leave out of their items what the list says of all."""
    return [{"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in items or []]


def _error(answer: httpx.Response) -> ApiError:
    try:
        told = answer.json()
        return ApiError(answer.status_code, str(told.get("reason")), str(told.get("message")))
    except ValueError:
        return ApiError(answer.status_code, answer.reason_phrase, answer.text)
