"""What is installed, and whether a model loads, reads and agrees with its reference.

Every check is one line with a verdict, so that the first user of released weights has a report to
trust or to send.
"""

import os
import pathlib
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Literal, NamedTuple

import jax
from flax import nnx

from mres_jax.data.documents import make_document
from mres_jax.errors import MresError, RunError
from mres_jax.geometry import Size
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.device import free_memory
from mres_jax.protocols import Request
from mres_jax.scoring import exact_match

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow"),
    *("safetensors", "tokenizers", "huggingface-hub"),
)
LOW_DISK = 5e9  # bytes
LOW_SHARED = 256e6  # bytes; workers hand over packs in it, a few tens of MB each
FEW_FILES = 1024  # open at once, by pictures, checkpoints and pipes of workers
SHARED = pathlib.Path("/dev/shm")
CGROUP_LIMITS = (  # of a container's memory, in both versions
    pathlib.Path("/sys/fs/cgroup/memory.max"),
    pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
HUB = ("huggingface.co", 443)
PAGE_SEED, PAGE_BIN = 20_250_621, "E"  # the shipped page: one document, the same everywhere


class Check(NamedTuple):
    """One verdict. `skipped` is no failure: the line says what it would take."""

    name: str
    state: Literal["ok", "failed", "skipped"]
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.name:<14} {self.detail}"

    @classmethod
    def of_error(cls, name: str, error: Exception) -> "Check":
        """A failure: the first line of what went wrong, with its type where it is not ours."""
        line = next(iter(str(error).strip().splitlines()), "no message")
        kind = "" if isinstance(error, MresError | RunError) else f"{type(error).__name__}: "
        return cls(name, "failed", f"{kind}{line}")

    @classmethod
    def run(cls, name: str, check: "Callable[[], Check]") -> "Check":
        """The verdict of `check`, or a failure: a report that stops short says the least."""
        try:
            return check()
        except Exception as error:
            return cls.of_error(name, error)


def check_machine() -> Iterator[Check]:
    """Yields verdicts about versions, devices, memory, disk, limits and the hub."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield Check.run("packages", _packages)
    yield Check.run("devices", _devices)
    yield Check.run("memory", _memory)
    yield Check.run("disk", _disk)
    yield Check.run("shared memory", _shared_memory)
    yield Check.run("limits", _limits)
    yield Check.run("hub", _hub)


def check_model(answerer: LocalAnswerer) -> Iterator[Check]:
    """Yields verdicts about a model that loaded: sizes, pixel limits, a page read."""
    yield Check.run("keys", lambda: _keys(answerer))
    yield Check.run("pixel limits", lambda: _pixel_limits(answerer))
    yield Check.run("page", lambda: _page(answerer))


def is_healthy(checks: list[Check]) -> bool:
    """Whether nothing failed."""
    return all(check.state != "failed" for check in checks)


def _packages() -> Check:
    found, absent = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return Check("packages", "failed", f"not installed: {', '.join(absent)}")
    return Check("packages", "ok", ", ".join(found))


def _devices() -> Check:
    devices = jax.devices()
    kinds = [f"{device.platform} {device.device_kind}" for device in devices]
    counted = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("devices", "ok", f"{counted}; {cores} CPU cores")


def _memory() -> Check:
    free = free_memory()
    if free is None:
        return Check("memory", "skipped", "this system does not tell how much is free")
    return Check("memory", "ok", f"{free / 1e9:.1f} GB free")


def _disk() -> Check:
    free = shutil.disk_usage(".").free
    state = "ok" if free > LOW_DISK else "failed"
    hint = "" if free > LOW_DISK else "; free some, checkpoints are large"
    return Check("disk", state, f"{free / 1e9:.1f} GB free here{hint}")


def _shared_memory() -> Check:
    if not SHARED.is_dir():
        return Check("shared memory", "skipped", f"this system has no {SHARED}")
    free = shutil.disk_usage(SHARED).free
    if free >= LOW_SHARED:
        return Check("shared memory", "ok", f"{_bytes(free)} free in {SHARED}")
    cure = "start the container with --shm-size=1g, or train with --num_workers=0"
    return Check("shared memory", "failed", f"{_bytes(free)} free in {SHARED}; {cure}")


def _limits() -> Check:
    """What the system lets a process have, whatever the machine has."""
    try:
        import resource
    except ImportError:  # Windows
        return Check("limits", "skipped", "this system does not tell")
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    counts = {"open files": files, "processes": processes}
    found = [f"{_count(limit)} {name}" for name, limit in counts.items()]
    found += [f"{_bytes(x)} of memory for this container" for x in _container_memory()]
    is_few = files != resource.RLIM_INFINITY and files < FEW_FILES
    cure = f"; ulimit -n {4 * FEW_FILES} before you start" if is_few else ""
    return Check("limits", "failed" if is_few else "ok", ", ".join(found) + cure)


def _container_memory() -> list[float]:
    """Bytes that the container may use, where it is limited."""
    texts = [path.read_text().strip() for path in CGROUP_LIMITS if path.is_file()]
    values = [float(text) for text in texts if text.isdecimal()]
    return [value for value in values if value < 2**60][:1]  # more stands for no limit


def _count(limit: int) -> str:
    return "any number of" if limit < 0 else f"{limit:,}"


def _hub() -> Check:
    try:
        with socket.create_connection(HUB, timeout=2):
            return Check("hub", "ok", f"{HUB[0]} answers")
    except OSError:
        return Check("hub", "skipped", f"{HUB[0]} is not reachable; directories work without it")


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _keys(answerer: LocalAnswerer) -> Check:
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(answerer.model)))
    return Check(
        "keys",
        "ok",
        f"{num_parameters:,} parameters, none missing, none unexpected "
        f"({_bytes(4 * num_parameters)} in float32, {_bytes(2 * num_parameters)} in bfloat16)",
    )


def _pixel_limits(answerer: LocalAnswerer) -> Check:
    spec = answerer.spec
    tokens = (spec.min_pixels // spec.stride**2, spec.max_pixels // spec.stride**2)
    context = answerer.generator.max_context
    detail = (
        f"{spec.min_pixels} to {spec.max_pixels} px a view, {tokens[0]} to {tokens[1]} visual "
        f"tokens of {spec.stride} px; {context} tokens of prompt and answer"
    )
    if not 0 < spec.min_pixels <= spec.max_pixels:
        return Check("pixel limits", "failed", f"{detail}: the smallest is above the largest")
    return Check("pixel limits", "ok", detail)


def _page(answerer: LocalAnswerer) -> Check:
    page = make_document(PAGE_SEED, kind="invoice", area_bin=PAGE_BIN, ratio_bin="NM")
    question = next(q for q in page.questions if q.type == "rc")
    request = Request(id="page", images=[page.image], question=question.text)
    size = Size(*page.image.shape[:2])
    asked = f"{question.text} on a page of {size.width} x {size.height} px"
    answer = answerer.answer([request])[0][0]
    state = "ok" if _holds(answer.text, question.answer) else "failed"
    return Check(
        "page",
        state,
        f"{asked}: {answer.text[:40]!r}, there: {question.answer!r}; "
        f"{answer.cost.visual_tokens} visual tokens",
    )


def _holds(text: str, expected: str) -> bool:
    """A chatty model may put the value into a sentence."""
    return exact_match(text, [expected]) == 1.0 or expected in text.split()
