"""Where the numbers of a run go: JSON lines always, TensorBoard and W&B where a run asks for them.

A series is `train` (means over a few steps) or `held_out` (one evaluation). What a run that goes on
will do again is taken out of JSON lines, and hidden by TensorBoard.
"""

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from mres_jax.config import AllocatorRun, Run, to_json
from mres_jax.errors import ConfigError
from mres_jax.files import write_together

Series = Literal["train", "held_out"]
FILES: dict[Series, str] = {"train": "metrics.jsonl", "held_out": "evaluations.jsonl"}
BAD_ROWS = "bad_rows.jsonl"  # beside them: what could not be read
NOT_SHOWN = ("step", "time")  # the axes of every chart


@runtime_checkable
class Writer(Protocol):
    """Takes what a run has to show."""

    def row(self, series: Series, row: Mapping[str, Any]) -> None:
        """Numbers by name; `step` and `time` (s since 1970) are among them."""
        ...

    def sample(self, step: int, name: str, pixels: np.ndarray | None, text: str) -> None:
        """An answer with the picture as the model saw it, `uint8 [h w 3]`, if it saw one."""
        ...

    def close(self) -> None:
        """Writes what waits."""
        ...


class JsonLines:
    """A file of rows per series, each row flushed at once."""

    def __init__(self, directory: pathlib.Path, first: int):
        for name in FILES.values():
            drop_rows_after(directory / name, first)
        self.directory = directory

    def row(self, series: Series, row: Mapping[str, Any]) -> None:
        """Appends it."""
        append_rows(self.directory / FILES[series], [row])

    def sample(self, step: int, name: str, pixels: np.ndarray | None, text: str) -> None:
        """Samples have files of their own."""

    def close(self) -> None:
        """Nothing waits."""


class TensorBoard:
    """Event files in `tensorboard/`."""

    def __init__(self, directory: pathlib.Path, first: int):
        import tensorboardX  # loads protobuf: only where it is asked for

        self._writer = tensorboardX.SummaryWriter(
            str(directory / "tensorboard"), purge_step=first + 1 if first else None
        )

    def row(self, series: Series, row: Mapping[str, Any]) -> None:
        """One scalar per number."""
        for name, value in _numbers(row):
            self._writer.add_scalar(f"{series}/{name}", value, row["step"], walltime=row["time"])
        self._writer.flush()

    def sample(self, step: int, name: str, pixels: np.ndarray | None, text: str) -> None:
        """Picture and text under one name."""
        if pixels is not None:
            self._writer.add_image(f"samples/{name}", pixels, step, dataformats="HWC")
        self._writer.add_text(f"samples/{name}", text, step)

    def close(self) -> None:
        """Ends its thread."""
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B, the same one when the run goes on; offline unless there is a key.

    `WANDB_MODE` is obeyed where it is set.
    """

    def __init__(
        self, directory: pathlib.Path, run: Run | AllocatorRun, log: Callable[[str], None]
    ):
        try:
            import wandb  # pyright: ignore[reportMissingImports], an extra
        except ImportError:
            raise ConfigError(
                "run: metrics names wandb, which is not installed: pip install 'mres-jax[wandb]', "
                "or leave it out."
            ) from None
        given = os.environ.get("WANDB_MODE")
        mode = given or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        if not given and mode == "offline":
            log("wandb: offline, since there is no WANDB_API_KEY; WANDB_MODE=online asks for one")
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mres-jax"),
            name=run.name,
            id=f"{zlib.crc32(str(directory.resolve()).encode()):08x}",
            resume="allow",
            dir=str(directory),
            mode=mode,
            config=json.loads(to_json(run)),
        )
        for series in FILES:  # W&B's own step only grows, ours goes back when a run is restored
            self._run.define_metric(f"{series}/*", step_metric="step")

    def row(self, series: Series, row: Mapping[str, Any]) -> None:
        """One chart per number."""
        numbers = {f"{series}/{name}": value for name, value in _numbers(row)}
        self._run.log({"step": row["step"], **numbers})

    def sample(self, step: int, name: str, pixels: np.ndarray | None, text: str) -> None:
        """A captioned picture, or the text alone."""
        shown = self._wandb.Html(f"<pre>{_escaped(text)}</pre>")
        if pixels is not None:
            shown = self._wandb.Image(pixels, caption=text)
        self._run.log({"step": step, f"samples/{name}": shown})

    def close(self) -> None:
        """Marks the run as done."""
        self._run.finish()


class Writers:
    """All of a run at once."""

    def __init__(self, writers: Sequence[Writer] = ()):
        self.writers = tuple(writers)

    def row(self, series: Series, row: Mapping[str, Any]) -> None:
        """To each."""
        for writer in self.writers:
            writer.row(series, row)

    def sample(self, step: int, name: str, pixels: np.ndarray | None, text: str) -> None:
        """To each."""
        for writer in self.writers:
            writer.sample(step, name, pixels, text)


@contextlib.contextmanager
def open_writers(
    run: Run | AllocatorRun,
    *,
    first: int,
    is_main: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[Writers]:
    """Yields the writers of a run, which are closed at the end.

    Args:
      run: its `metrics` and directory.
      first: steps already done.
      is_main: whether this process writes; the others of a run do not.
      log: takes a line.

    Raises:
      ConfigError: a writer that is not installed.
    """
    directory = pathlib.Path(run.checkpoint.dir)
    make: dict[str, Callable[[], Writer]] = {
        "tensorboard": lambda: TensorBoard(directory, first),
        "wandb": lambda: WeightsAndBiases(directory, run, log),
    }
    with contextlib.ExitStack() as stack:
        writers: list[Writer] = [JsonLines(directory, first)] if is_main else []
        for name in run.metrics if is_main else ():
            writers.append(make[name]())
            stack.callback(writers[-1].close)
        yield Writers(writers)


def append_rows(file: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows to a file of JSON lines, in UTF-8 as they read."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    # half a surrogate pair has no UTF-8; what stands for it then is its escape in JSON too
    with file.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as opened:
        opened.write("".join(lines))


def read_rows(file: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, without one that was cut short; none if absent."""
    return [row for _, row in _lines(file)]


def keep_rows(
    file: pathlib.Path, is_wanted: Callable[[Mapping[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Leaves the wanted rows in a file of JSON lines, byte for byte, and returns them.

    A row that was cut short goes, so that the next one starts on a line of its own.
    """
    kept = [(line, row) for line, row in _lines(file) if is_wanted(row)]
    content = b"".join(line + b"\n" for line, _ in kept)
    if file.is_file() and content != file.read_bytes():
        write_together(file.parent, {file.name: content})
    return [row for _, row in kept]


def drop_rows_after(file: pathlib.Path, step: int) -> None:
    """Takes rows of steps that a restored run will do again out of a file of JSON lines."""
    keep_rows(file, lambda row: row["step"] <= step)


def _lines(file: pathlib.Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Whole rows as they stand and as they read. Texts may hold Unicode's other ends of lines."""
    for line in file.read_bytes().split(b"\n") if file.is_file() else []:
        with contextlib.suppress(ValueError):
            yield line, json.loads(line)


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    is_number = {k: isinstance(v, int | float) and k not in NOT_SHOWN for k, v in row.items()}
    return [(name, float(value)) for name, value in row.items() if is_number[name]]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
