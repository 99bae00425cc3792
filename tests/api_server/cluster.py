"""A real API server as tests see it: the client has exactly the Role of `manifests/`, the test plays everybody else."""

import base64
import contextlib
import copy
import json
import os
import shutil
import subprocess
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api.cluster import NAMESPACE, Cluster
from kubernetes_api.crds import definitions
from kubernetes_api.server import resources_of
from kubernetes_api.store import ApiError, Change, Object, Resource
from kubernetes_api.training_webhooks import refusal
from repository import REPOSITORY
from skips import Need, skip

from api_server.admin_client import AdminClient, path
from api_server.control_plane import PROGRAMS, ControlPlane, control_plane
from api_server.garbage_collector import GarbageCollector
from api_server.node import Node
from api_server.webhook import Refusal, Webhook

ASSETS = "KUBEBUILDER_ASSETS"
ACCOUNT = "pipeline-runner"
ROLE = "image-classification"
OVERLAYS = REPOSITORY / "manifests" / "overlays"
# Which has everything that the client of a test may need.
OVERLAY = OVERLAYS / "local-trainer"
# What a test finds and leaves; of all other kinds each test begins with none.
KEPT = ("namespaces", "nodes", "customresourcedefinitions", "roles", "rolebindings", "clusterroles", "serviceaccounts")
# Which a controller takes off a volume claim that no pod uses; there is none here.
PROTECTION = "kubernetes.io/pvc-protection"
OWNERS = ("pods", "tfjobs", "trainjobs", "inferenceservices")
SETTLE_SECONDS = 90.0
PAUSE_SECONDS = 0.02


@contextlib.contextmanager
def running(directory: Path) -> Iterator["RealKubernetesApi"]:
    """The API server of KUBEBUILDER_ASSETS, with `manifests/` applied; skips where the variable is not set.

    Args:
        directory: An empty one for its state and logs.

    Fails the test when the variable names a folder without the programs.

    Raises:
        NotStarted: When one of them does not start.
    """
    if not os.environ.get(ASSETS):
        skip(Need.API_SERVER, f"{ASSETS} is not set")
    assets = Path(os.environ[ASSETS])
    missing = [program for program in PROGRAMS if shutil.which(program, path=str(assets)) is None]
    if missing:
        pytest.fail(
            f"{ASSETS} = {assets}: no {' and no '.join(missing)} in it that can be run; setup-envtest brings them "
            f"(see CONTRIBUTING.md). Or unset {ASSETS}: then these tests are skipped",
            pytrace=False,
        )
    with control_plane(assets, directory) as plane, contextlib.ExitStack() as stack:
        admin = AdminClient(plane.url, plane.certificate, plane.admin_token)
        stack.callback(admin.close)
        node = stack.enter_context(Node(admin, plane.certificate, plane.key).running())
        api = RealKubernetesApi(plane, admin, node, directory)
        api.set_up()
        webhook = stack.enter_context(Webhook(api.resource, plane.certificate, plane.key).running())
        api.install(webhook)
        collected = [resource for resource in api.resources() if resource.plural in OWNERS]
        stack.enter_context(GarbageCollector(admin, api.resources, collected).running())
        yield api


class RealKubernetesApi(Cluster):
    """A test's hands on a cluster whose API server is real. No controller runs but those that a test plays."""

    def __init__(self, plane: ControlPlane, admin: AdminClient, node: Node, directory: Path) -> None:
        self.token, self.admin_token = "", plane.admin_token
        self.admission: list[Refusal] = [self._training_webhooks]
        self._plane, self._admin, self._node, self._directory = plane, admin, node, directory
        self._definitions = {crd["metadata"]["name"]: _without_status(crd) for crd in definitions()}
        self._changed_definitions: set[str] = set()
        self._roles: list[tuple[Resource, Object]] = []
        self._accounts: list[Object] = []
        self._forbidden = False
        self._audited = 0
        self._over = threading.Event()
        self._admin_config = directory / "admin.kubeconfig"

    @property
    def url(self) -> str:
        return self._plane.url

    def set_up(self) -> None:
        """Installs what a cluster has before this project comes, and then `manifests/`."""
        for namespace in ("default", NAMESPACE):
            self._make_if_absent({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for account in ("default", ACCOUNT):
            self._make_if_absent({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
        for crd in self._definitions.values():
            self._admin.ask("POST", path(self.resource("customresourcedefinitions")), crd)
        self._wait_until_served(*self._definitions.values())
        self.token = self._token(ACCOUNT)
        self._client = AdminClient(self._plane.url, self._plane.certificate, self.token)
        self.kubectl("apply", "--server-side", "-k", str(OVERLAY))
        self._roles = [
            (kind, self._admin.get(kind, NAMESPACE, item["metadata"]["name"]))
            for kind in (self.resource("roles"), CLUSTER_ROLES)
            for item in self._admin.items(kind, NAMESPACE)
            if item["metadata"]["name"].startswith(ROLE)
        ]
        self._accounts = self.objects("serviceaccounts")
        self._wait_for_roles()
        self.empty()

    def install(self, webhook: Webhook) -> None:
        """Lets the API server ask a webhook, which judges by `admission`."""
        webhook.refusals = self.admission
        registered = webhook.configuration()
        self._admin.ask("POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", registered)

    def kubectl(self, *arguments: str) -> str:
        """Runs kubectl, that of KUBEBUILDER_ASSETS or else of the PATH, as an administrator; returns what it says."""
        kubectl = shutil.which("kubectl", path=f"{os.environ[ASSETS]}{os.pathsep}{os.environ['PATH']}")
        if kubectl is None:
            pytest.fail(
                f"no kubectl, neither in {ASSETS} nor in the PATH; `make test-tools` installs it", pytrace=False
            )
        if not self._admin_config.exists():
            self.write_kubeconfig(self._admin_config, token=self.admin_token)
        command = [kubectl, "--kubeconfig", str(self._admin_config), "--cache-dir", str(self._directory / "kubectl")]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def empty(self) -> None:
        """Takes away what a test made, and gives back what it took."""
        for name in self._changed_definitions:
            self._install_anew(self._definitions[name])
        self._changed_definitions.clear()
        for resource in self.resources():
            if resource.plural not in KEPT:
                self._remove_all(resource)
        self.admission[:] = [self._training_webhooks]
        self._restore_accounts()
        if self._forbidden:
            self._restore_roles()
        self._audited = len(self._audit_lines())

    # The cluster's side

    def resources(self) -> list[Resource]:
        return [*resources_of(self._definitions.values()), CLUSTER_ROLES]

    def resource(self, plural: str) -> Resource:
        return next(resource for resource in self.resources() if resource.plural == plural)

    def create(self, item: Object, namespace: str = NAMESPACE) -> Object:
        item = copy.deepcopy(item)
        resource = next(
            known for known in self.resources() if (known.kind, known.api_version) == (item["kind"], item["apiVersion"])
        )
        if resource.plural == "customresourcedefinitions":
            self._changed_definitions.add(item["metadata"]["name"])
            made = self._admin.ask("POST", path(resource), _without_status(item))
            self._wait_until_served(item)
            return made
        status = item.pop("status", None)
        if node := item.get("spec", {}).get("nodeName"):
            self._node.register(node)
        made = self._admin.ask("POST", path(resource, item["metadata"].get("namespace", namespace)), item)
        if status is None:
            return made
        return self.set_status(resource.plural, made["metadata"]["name"], status, made["metadata"].get("namespace", ""))

    def get(self, plural: str, name: str, namespace: str = NAMESPACE) -> Object:
        return self._admin.get(self.resource(plural), namespace, name)

    def objects(self, plural: str, namespace: str = NAMESPACE, labels: str = "") -> list[Object]:
        return self._admin.items(self.resource(plural), namespace, labels)

    def update(
        self, plural: str, name: str, change: Callable[[Object], Object], namespace: str = NAMESPACE, part: str = "all"
    ) -> Object:
        resource = self.resource(plural)
        if plural == "customresourcedefinitions":
            self._changed_definitions.add(name)
        while True:
            before = self._admin.get(resource, namespace, name)
            wanted = change(copy.deepcopy(before))
            try:
                return self._replace(resource, before, wanted, part)
            except ApiError as error:
                if error.code != 409:
                    raise

    def _replace(self, resource: Resource, before: Object, wanted: Object, part: str) -> Object:
        namespace, name = before["metadata"].get("namespace", ""), before["metadata"]["name"]
        after = before
        if part != "status" and _without_status(wanted) != _without_status(before):
            after = self._admin.ask("PUT", path(resource, namespace, name), wanted)
        if resource.has_status and wanted.get("status") != before.get("status"):
            changed = {**after, "status": wanted.get("status", {})}
            after = self._admin.ask("PUT", path(resource, namespace, name, "status"), changed)
        return after

    def delete(self, plural: str, name: str, namespace: str = NAMESPACE) -> None:
        resource = self.resource(plural)
        item = self._admin.get(resource, namespace, name)
        if plural == "customresourcedefinitions":
            self._changed_definitions.add(name)
        finalizers = item["metadata"].get("finalizers", [])
        if PROTECTION in finalizers:
            self._admin.set_finalizers(resource, item, [name for name in finalizers if name != PROTECTION])
        self._admin.delete(resource, item, 0 if plural == "pods" else None)
        if not set(finalizers) - {PROTECTION}:
            self.wait_for(lambda: not self._is_there(resource, item), SETTLE_SECONDS)
        if plural == "customresourcedefinitions":
            self._wait_until_not_served(item)

    def bind(self, pod: str, node: str, namespace: str = NAMESPACE) -> None:
        self._node.register(node)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
        self._admin.ask("POST", path(self.resource("pods"), namespace, pod, "binding"), binding)

    def write_log(self, pod: str, text: str, namespace: str = NAMESPACE) -> None:
        self._node.log(self.get("pods", pod, namespace)["metadata"]["uid"]).write(text)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(ApiError):
                if value := condition():
                    return value
            time.sleep(PAUSE_SECONDS)
        raise TimeoutError(f"not within {seconds} s: {condition}")

    def changes(self, plural: str, is_over: Callable[[], bool]) -> Iterator[Change]:
        return self._admin.watch(self.resource(plural), is_over)

    def forbid(self, verb: str = "", plural: str = "", sub: str = "") -> None:
        self._forbidden = True
        for kind, role in self._roles:
            before = self._admin.get(kind, NAMESPACE, role["metadata"]["name"])
            rules = [
                {**rule, "resources": [resource], "verbs": [one]}
                for rule in before["rules"]
                for resource in rule["resources"]
                for one in rule["verbs"]
                if not _matches(verb, plural, sub, one, resource)
            ]
            self._admin.ask("PUT", path(kind, NAMESPACE, role["metadata"]["name"]), {**before, "rules": rules})
        self._wait_for_roles()

    def token_of_user(self, rights: dict[str, list[str]]) -> str:
        user = {"name": f"user-{uuid.uuid4().hex[:8]}"}
        rules = [{"apiGroups": [""], "resources": [resource], "verbs": verbs} for resource, verbs in rights.items()]
        group, binding = CLUSTER_ROLES.api_version, {"subjects": [{"kind": "ServiceAccount", **user}]}
        self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": user})
        self.create({"apiVersion": group, "kind": "Role", "metadata": user, "rules": rules})
        binding["roleRef"] = {"apiGroup": CLUSTER_ROLES.group, "kind": "Role", **user}
        self.create({"apiVersion": group, "kind": "RoleBinding", "metadata": user, **binding})
        token = self._token(user["name"])
        client = AdminClient(self._plane.url, self._plane.certificate, token)
        self.wait_for(lambda: _rights(rules) <= self._rights_of(client), SETTLE_SECONDS)
        client.close()
        return token

    # The client's side

    @property
    def requests(self) -> list[tuple[str, str]]:
        return [
            (entry["verb"], urllib.parse.urlsplit(entry["requestURI"]).path)
            for entry in map(json.loads, self._audit_lines()[self._audited :])
        ]

    def _audit_lines(self) -> list[str]:
        log = self._plane.audit_log
        return log.read_text().splitlines() if log.exists() else []

    def _trusted(self) -> dict[str, str]:
        return {"certificate-authority-data": base64.b64encode(self._plane.certificate.read_bytes()).decode()}

    # Between tests

    def _training_webhooks(self, resource: Resource, item: Object) -> str | None:
        def lookup(plural: str, name: str) -> Object | None:
            with contextlib.suppress(ApiError):
                return self.get(plural, name, "")
            return None

        return refusal(resource.plural, item, lookup)

    def _make_if_absent(self, item: Object) -> None:
        with contextlib.suppress(ApiError):
            self.create(item)

    def _remove_all(self, resource: Resource) -> None:
        namespace = NAMESPACE if resource.namespaced else ""
        for item in self._admin.items(resource, namespace):
            self._admin.delete(resource, item, 0)
            if item["metadata"].get("finalizers"):
                self._admin.set_finalizers(resource, item, [])

    def _install_anew(self, crd: Object) -> None:
        kind, name = self.resource("customresourcedefinitions"), crd["metadata"]["name"]
        with contextlib.suppress(ApiError):
            self.delete(kind.plural, name, "")
        self._admin.ask("POST", path(kind), crd)
        self._wait_until_served(crd)

    def _wait_until_served(self, *crds: Object) -> None:
        kinds = [kind for kind in resources_of(crds) if kind.is_custom]
        wanted = {(kind.group, kind.version, kind.plural) for kind in kinds}
        self.wait_for(lambda: wanted <= self._admin.served(), SETTLE_SECONDS)
        for kind in kinds:
            self.wait_for(lambda kind=kind: self._admin.ask("GET", path(kind)), SETTLE_SECONDS)

    def _wait_until_not_served(self, crd: Object) -> None:
        """The definition goes first; for a moment its kinds are still found."""
        gone = {(kind.group, kind.version, kind.plural) for kind in resources_of([crd]) if kind.is_custom}
        self.wait_for(lambda: not gone & self._admin.found(), SETTLE_SECONDS)

    def _restore_roles(self) -> None:
        for kind, role in self._roles:
            name = role["metadata"]["name"]
            now = self._admin.get(kind, NAMESPACE, name)
            self._admin.ask("PUT", path(kind, NAMESPACE, name), {**now, "rules": role["rules"]})
        self._wait_for_roles()
        self._forbidden = False

    def _wait_for_roles(self) -> None:
        """Waits until the API server judges by the Roles as they are; it reads them through a watch."""
        asked = set().union(*(_rights(role["rules"]) for _, role in self._roles))
        now = [self._admin.get(kind, NAMESPACE, role["metadata"]["name"]) for kind, role in self._roles]
        wanted = set().union(*(_rights(role.get("rules") or []) for role in now))
        self.wait_for(lambda: self._rights_of(self._client) & asked == wanted, SETTLE_SECONDS)

    def _rights_of(self, client: AdminClient) -> set[tuple[str, str, str]]:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": NAMESPACE},
        }
        told = client.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
        return _rights(told["status"]["resourceRules"])

    def _token(self, account: str) -> str:
        told = self._admin.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token", TOKEN)
        return str(told["status"]["token"])

    def _restore_accounts(self) -> None:
        known = {account["metadata"]["name"] for account in self._accounts}
        there = {account["metadata"]["name"] for account in self.objects("serviceaccounts")}
        for name in there - known:
            for kind in ("rolebindings", "roles", "serviceaccounts"):
                self.delete(kind, name)
        for name in known - there:
            self.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})

    def _is_there(self, resource: Resource, item: Object) -> bool:
        try:
            now = self._admin.get(resource, item["metadata"].get("namespace", ""), item["metadata"]["name"])
        except ApiError as error:
            return error.code != 404
        return bool(now["metadata"]["uid"] == item["metadata"]["uid"])


CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
TOKEN = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 24 * 3600}}


def _matches(verb: str, plural: str, sub: str, of_rule: str, resource: str) -> bool:
    known, _, known_sub = resource.partition("/")
    return verb in ("", of_rule) and plural in ("", known) and (not sub or sub == known_sub)


def _rights(rules: list[Object]) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _without_status(item: Object) -> Object:
    return {key: value for key, value in item.items() if key != "status"}
