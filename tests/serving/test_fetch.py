"""Pictures from named hosts: nothing else, nowhere else, and never without end."""

import http.server
import threading
import time

import pytest

from mres_jax.errors import BadImageError
from mres_jax.serving import fetch as module
from mres_jax.serving.fetch import fetch


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition("?")[0]
        self.send_response({"/moved": 302, "/none": 404}.get(name, 200))
        if name == "/moved":
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        if name == "/slow":
            time.sleep(1.5)
        for _ in range(20 if name == "/drips" else 0):
            self.wfile.write(b"x")
            time.sleep(0.1)
        self.wfile.write(self.path.encode() if name != "/large" else b"x" * 5_000)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def host():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def get(url, hosts, max_bytes=1_000):
    return fetch(url, hosts, max_bytes=max_bytes, name="0")


def test_a_named_host_is_fetched_from(host):
    assert get(f"http://{host}/a.png?b=1", [host]) == b"/a.png?b=1"
    assert get(f"http://{host}/", ["127.0.0.1"]) == b"/"
    assert get(f"http://localhost:{host.split(':')[1]}/x", ["localhost"]) == b"/x"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://{host}/moved", "status 302; redirects are not followed"),
        ("http://{host}/none", "status 404"),
        ("http://{host}/large", "more than 1000 bytes"),
        ("http://127.0.0.2/a", "http://127.0.0.2 is not fetched from; only 127.0.0.1 may"),
        ("http://169.254.169.254/latest", "is not fetched from"),
        ("file:///etc/passwd", "file:// is not fetched from"),
        ("ftp://127.0.0.1/a", "ftp://127.0.0.1 is not fetched from"),
        ("gopher", "is not fetched from"),
        ("http://a:b@127.0.0.1/", "does not read, or holds a password"),
        ("http://127.0.0.1:x/", "its address does not read"),
        ("http://127.0.0.1/\r\nX: y", "does not read"),
        ("http://[::1/", "its address does not read"),
    ],
)
def test_anything_else_is_refused_in_one_line(host, url, text):
    with pytest.raises(BadImageError) as error:
        get(url.format(host=host), ["127.0.0.1"])
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch):
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0"):
        found = [(0, 0, 0, "", (address, 80))]
        monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, found=found, **__: found)
        with pytest.raises(BadImageError, match="leads to an address that is not public"):
            get("http://pictures.example/a.png", ["pictures.example"])


@pytest.mark.parametrize("path", ["slow", "drips"])
def test_no_picture_is_waited_for_without_end(host, monkeypatch, path):
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    start = time.monotonic()
    with pytest.raises(BadImageError, match=r"no answer within 0\.3 s"):
        get(f"http://{host}/{path}", [host])
    assert time.monotonic() - start < 1.4
