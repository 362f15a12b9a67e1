"""A frozen backbone behind a server: how a run asks it, waits for it, and keeps what it said.

A server draws other answers when it is asked again. So its replies are kept until the run saves,
and a run that was cut is given them as they were; only what nobody had answered is asked.
"""

import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.config import AllocatorRun
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import ConfigError
from mres_jax.inference.patience import Patience
from mres_jax.inference.remote import RemoteAnswerer
from mres_jax.models.registry import Processor, load_processor
from mres_jax.training.metrics import append_rows, keep_rows

REPLIES = "replies.jsonl"
_KEPT = ("choices", "usage")  # of a reply


class KeptReplies:
    """Replies in a file, by what was sent: an `mres_jax.inference.remote.Replies`.

    What was sent is all of a request, pixels included, and nothing of where it went to: a server
    may come back at another address.
    """

    def __init__(self, file: pathlib.Path):
        self.file = file
        self._known: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()

    def open(self) -> int:
        """Reads what is there, without a line that was cut short; returns how many there are."""
        rows = keep_rows(self.file, lambda row: True)
        self._known = {row["sent"]: row["reply"] for row in rows}
        return len(self._known)

    def find(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns what was replied to the same request before the run was cut."""
        return self._known.get(_digest(body)) if self._known else None

    def add(self, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Appends a reply."""
        kept = {name: reply[name] for name in _KEPT if name in reply}
        row = {"sent": _digest(body), "reply": kept}
        with self._lock:
            append_rows(self.file, [row])

    def forget(self) -> None:
        """Drops all of them: the run has saved what came of them."""
        self._known = {}
        self.file.unlink(missing_ok=True)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(body).encode(), digest_size=16).hexdigest()


class Link:
    """What a run has to do with a server beside its answers; nothing where there is none.

    Attributes:
      patience: with a server that is away.
      replies: since the last save.
    """

    def __init__(self, directory: pathlib.Path, patience: float, log: Callable[[str], None]):
        self.patience, self.log = Patience(patience, log), log
        self.replies = KeptReplies(directory / REPLIES)

    def begin(self, is_over: Callable[[], bool]) -> None:
        """Reads the replies that a run which was cut had; `is_over` ends waiting."""
        self.patience.is_over = is_over
        if count := self.replies.open():
            self.log(f"{count:,} replies of the server since the last save are taken as they were")


def load_served(run: AllocatorRun) -> Processor:
    """Loads what is known of a served backbone here.

    Raises:
      CheckpointError: no such model, or one without tokenizer.
      ConfigError: a clip cannot be sent to it as the run wants.
    """
    spec, tokenizer = load_processor(run.server.processor)
    if run.wire == "pairs" and spec.template.parts_frames:
        raise ConfigError(
            f"run: wire=pairs, but {run.server.processor} writes the time of every pair itself, "
            "and behind a server each of them is a clip that begins at 0 s. Use wire=stills with "
            "times=true."
        )
    return Processor(spec, tokenizer)


def open_served(
    run: AllocatorRun, spec: ProcessorSpec, tokenizer: Tokenizer, link: Link | None = None
) -> RemoteAnswerer:
    """Returns what asks the server of a run; nothing is sent yet.

    Args:
      run: its `backbone` is an address. A key is read from the environment: OPENAI_API_KEY.
      spec: of the served model.
      tokenizer: of the served model, so that prompts are counted.
      link: of the run; without it nothing is kept and nobody waits.
    """
    server, kwargs = run.server, run.server.processor_kwargs
    if kwargs is None:
        kwargs = pixel_limits(spec)
    return RemoteAnswerer(
        str(run.backbone),
        spec=spec,
        api_key=os.environ.get("OPENAI_API_KEY"),
        logprobs=False,
        concurrency=server.concurrency,
        timeout=server.timeout,
        retries=server.retries,
        tokenizer=tokenizer,
        fields={"mm_processor_kwargs": dict(kwargs)} if kwargs else {},
        patience=link and link.patience,
        replies=link and link.replies,
    )


def pixel_limits(spec: ProcessorSpec) -> dict[str, int]:
    """Returns the limits under which a processor that resizes as Qwen's leaves every view as it is.

    Others know no such limits: for them it is empty.
    """
    if spec.resize_rule != "hf":
        return {}
    largest = max(spec.max_pixels, spec.video.max_pixels if spec.video else 0)
    return {"min_pixels": spec.stride**2, "max_pixels": largest}
