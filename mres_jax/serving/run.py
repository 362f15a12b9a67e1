"""A server from its start to its end."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from mres_jax.errors import ConfigError, RunError
from mres_jax.files import system_reason
from mres_jax.serving.app import App, Backend
from mres_jax.serving.http import Server
from mres_jax.serving.limits import Limits

AFTER_GRACE = 1.0  # seconds in which what was cut off is told so, and programs may end
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    backend: Backend,
    *,
    host: str,
    port: int,
    limits: Limits,
    grace: float,
    say: Callable[[str], None],
    log: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C; then takes no more, and ends when all are answered.

    What is not answered within `grace` is refused. A thread that compiles or runs a program may
    outlast the call: nothing can end it, and the interpreter would abort in it. A process that has
    nothing else to do is then to be left by `os._exit`, as the command line does.

    Args:
      backend: who answers.
      host: address to listen at.
      port: 0 takes any that is free.
      limits: what the server takes upon itself.
      grace: seconds that requests under way have after the signal.
      say: takes the address, once it answers there.
      log: takes a line for each request and event.
      stop: ends it like a signal, for those that run it in a thread.

    Raises:
      ConfigError: the port is taken, or the address is none of this machine's.
      RunError: requests were cut off at the end of `grace`.
    """
    app = App(backend, created=int(time.time()))
    try:
        server = Server(host, port, app, max_body_bytes=limits.max_body_bytes, log=log)
    except (OSError, OverflowError) as error:
        reason = system_reason(error).lower() if isinstance(error, OSError) else "no such port"
        message = f"serve: {host}:{port}: {reason}. Choose another --port or --host."
        raise ConfigError(message) from None
    stop = stop or threading.Event()
    listening = threading.Thread(target=server.serve_forever, args=(0.1,), name="mres-listen")
    with _signals(stop):
        listening.start()
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{server.server_port}/v1")
        while not stop.wait(1.0):  # a wait without end would keep signals waiting on some systems
            pass
        app.is_draining = True
        server.shutdown()
        listening.join()
        server.server_close()
        log(f"stopping: at most {grace:g} s for what is under way")
        end = time.monotonic() + grace
        left = server.wait_until_idle(grace)
        backend.close(max(end - time.monotonic(), AFTER_GRACE))
        server.wait_until_idle(AFTER_GRACE)
    if left:
        raise RunError(f"serve: {left} requests were cut off after {grace:g} s (--grace).")


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; a second one ends the process at once."""

    def remember(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
