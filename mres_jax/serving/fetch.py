"""Pictures from named hosts, over HTTP or HTTPS; nothing else is ever fetched.

The address that is connected to is the one that was checked; redirects are not followed.
"""

import http.client
import ipaddress
import socket
import ssl
import time
import urllib.parse
from collections.abc import Collection

from mres_jax.errors import BadImageError

TIMEOUT = 10.0  # seconds, for all of it
_PIECE = 2**16


def fetch(url: str, hosts: Collection[str], *, max_bytes: int, name: str) -> bytes:
    """Returns the bytes of a file on one of `hosts`.

    A host's name must lead to a public address, unless the host was named as an address itself or
    as `localhost`: a name is in the hands of whoever runs its DNS.

    Args:
      url: of the file.
      hosts: `host` or `host:port` each, as the operator named them.
      max_bytes: larger files are refused.
      name: what errors call the picture.

    Raises:
      BadImageError: another host or scheme, a private address, a redirect, too large, too slow.
    """
    parts = _split(url, name)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    named = {entry.lower() for entry in hosts}
    if parts.scheme not in ("http", "https") or not named & {host, f"{host}:{port}", parts.netloc}:
        listed = f"only {', '.join(sorted(named))}" if named else "no host"
        raise BadImageError(
            f"picture {name}: {parts.scheme}://{host} is not fetched from; {listed} may be named. "
            "Send it as a data URL."
        )
    deadline = time.monotonic() + TIMEOUT
    try:
        with _connect(host, port, parts.scheme == "https", deadline) as stream:
            return _get(stream, parts, deadline, max_bytes)
    except _RefusedError as error:
        raise BadImageError(f"picture {name}: {host}: {error}.") from None
    except (OSError, http.client.HTTPException) as error:
        reason = f"no answer within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else ""
        reason = reason or getattr(error, "strerror", None) or type(error).__name__
        raise BadImageError(f"picture {name}: {host}: {reason.lower()}.") from None


class _RefusedError(Exception):
    """A reason of our own, in words."""


def _split(url: str, name: str) -> urllib.parse.SplitResult:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        raise BadImageError(f"picture {name}: its address does not read.") from None
    if not url.isascii() or not url.isprintable() or " " in url or parts.username is not None:
        raise BadImageError(f"picture {name}: its address does not read, or holds a password.")
    return parts


def _connect(host: str, port: int, secure: bool, deadline: float) -> socket.socket:
    address = _checked_address(host, port)
    stream = socket.create_connection((address, port), timeout=_left(deadline))
    if not secure:
        return stream
    try:
        return ssl.create_default_context().wrap_socket(stream, server_hostname=host)
    except BaseException:
        stream.close()
        raise


def _checked_address(host: str, port: int) -> str:
    try:
        ipaddress.ip_address(host)
        return host  # the operator named this very address
    except ValueError:
        pass
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if host != "localhost":
        for address in addresses:
            if not ipaddress.ip_address(address.partition("%")[0]).is_global:
                raise _RefusedError("its name leads to an address that is not public")
    return addresses[0]


def _get(
    stream: socket.socket, parts: urllib.parse.SplitResult, deadline: float, max_bytes: int
) -> bytes:
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    connection.sock = stream
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    connection.request("GET", target, headers={"Accept": "image/*", "Connection": "close"})
    with connection.getresponse() as reply:
        if reply.status != http.HTTPStatus.OK:
            raise _RefusedError(f"status {reply.status}; redirects are not followed")
        content = bytearray()
        while piece := _read(reply, stream, deadline):
            content += piece
            if len(content) > max_bytes:
                raise _RefusedError(f"more than {max_bytes} bytes")
        return bytes(content)


def _read(reply: http.client.HTTPResponse, stream: socket.socket, deadline: float) -> bytes:
    if stream.fileno() >= 0:  # the connection lets go of it where it will be closed
        stream.settimeout(_left(deadline))
    return reply.read1(_PIECE)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
