"""The one place that knows what is reached directly, and what by the user's proxy.

Peers, this machine and the cluster's services are reached directly, whatever the proxy variables say: no proxy outside
knows the way to them. All else goes as the user's variables say.
"""

import ipaddress
import os
import urllib.request
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

# As every client understands them: all know names and their endings, not all know networks.
_NAMES = ("localhost", "127.0.0.1", "::1")
_ENDINGS = (".localhost", ".svc", ".cluster.local")
_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"


def reached_directly(url: str) -> bool:
    """Whether an address is one of this machine, of the cluster, or of those that the user's no_proxy names."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
        if address.is_loopback or address.is_unspecified:
            return True
    except ValueError:
        # In a pod, a name without a dot is a service of the pod's own namespace.
        if not host or (os.environ.get(_SERVICE_HOST) and "." not in host):
            return True
    if host in (*_NAMES, os.environ.get(_SERVICE_HOST)) or host.endswith(_ENDINGS) or ".svc." in host:
        return True
    return bool(urllib.request.proxy_bypass_environment(host))  # type: ignore[attr-defined]


def proxy_for(url: str) -> str | None:
    """The user's proxy on the way to an address; None for none."""
    if reached_directly(url):
        return None
    proxies = urllib.request.getproxies_environment()
    return proxies.get(urlsplit(url).scheme) or proxies.get("all")


def http_client(url: str, **options: Any) -> "httpx.Client":
    """A client for one server, with that server's proxy, if any, and all else as the environment says.

    Args:
        url: Address of the server.
        **options: As httpx.Client takes them.

    Raises:
        ValueError: When the proxy of a server outside cannot be used; the message names it.
    """
    import httpx  # takes a moment to load, which not every process needs

    transport = {name: options.pop(name) for name in ("verify", "limits") if name in options}
    proxy = proxy_for(url)
    try:
        # With a transport of one's own, httpx does not look for proxies, one of which it may not even understand.
        return httpx.Client(transport=httpx.HTTPTransport(proxy=proxy, **transport), **options)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ValueError(f"the proxy {proxy!r} of the environment cannot be used: {error}") from None


def exempt_from_proxies(environment: MutableMapping[str, str], hosts: Iterable[str] = ()) -> None:
    """Tells clients that read the proxy variables themselves (gRPC, requests, curl) what is reached directly.

    Args:
        environment: Changed: no_proxy in both cases, and gRPC's own variable where it is set, as it goes before.
        hosts: Further hosts, such as the other workers.
    """
    service_host = environment.get(_SERVICE_HOST)
    direct = [*_NAMES, *_ENDINGS, *([service_host] if service_host else []), *hosts]
    given = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    for name in ("no_proxy", "NO_PROXY", *(["no_grpc_proxy"] if "no_grpc_proxy" in environment else [])):
        parts = ",".join([environment.get(name, ""), *given]).replace(" ", ",").split(",")
        # A lone * is understood only where it stands alone.
        environment[name] = "*" if "*" in parts else ",".join(dict.fromkeys(filter(None, [*parts, *direct])))
