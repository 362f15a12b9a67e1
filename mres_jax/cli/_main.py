"""Dispatch, and how every failure ends: one line on stderr and an exit code."""

import contextlib
import importlib
import logging
import os
import re
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import NoReturn

from mres_jax.cli._parser import make_parser, parse
from mres_jax.errors import MresError, RunError
from mres_jax.files import disk_reason

_OUT_OF_MEMORY = "out of memory. Choose fewer pixels (--policy budget:256) or a smaller model."
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")  # where something lies in memory is nobody's business
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      argv: arguments without the program's name; None takes the process's own.

    Returns:
      0 done, 1 failed, 2 bad usage or bad input, 130 interrupted. `MRES_DEBUG=1` lets the
      exception through instead.
    """
    parser = make_parser()
    try:
        args = parse(parser, sys.argv[1:] if argv is None else argv)
        command = importlib.import_module(f"mres_jax.cli.{args.command}")
        with _quiet():
            code = command.run(args)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
        return code
    except SystemExit as exit_:  # --help and --version end here
        return int(exit_.code or 0)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get("MRES_DEBUG") == "1":
            raise
        return _fail(*describe(error))


def program() -> NoReturn:
    """The command `mres`: `main`, and the end of its process.

    A thread of a server that compiles or runs a program cannot be ended, and the interpreter would
    abort in it (SIGABRT): the process is left as it is then.
    """
    code = main()
    if any(thread.name.startswith("mres-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries log pages where one line is due; `MRES_DEBUG=1` lets them."""
    level = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        if os.environ.get("MRES_DEBUG") != "1":
            logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)


def describe(error: Exception) -> tuple[str, int]:
    """Returns the line that a user reads about an exception, and the exit code."""
    if isinstance(error, MresError):
        return _one_line(str(error)), BAD_INPUT
    if isinstance(error, RunError):
        return _one_line(str(error)), FAILED
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{disk_reason(error)}.", FAILED
    if "RESOURCE_EXHAUSTED" in str(error) or isinstance(error, MemoryError):
        return _OUT_OF_MEMORY, FAILED
    reason = textwrap.shorten(_ADDRESS.sub("...", str(error)), 300, placeholder=" ...")
    return (
        f"unexpected {type(error).__name__}: {reason or 'no message'} (MRES_DEBUG=1 shows where)",
        FAILED,
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """A user's warning as one line, without the line of source that raised it."""
    if issubclass(category, UserWarning):
        print(f"mres: warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(message: str, code: int) -> int:
    print(f"mres: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    program()
