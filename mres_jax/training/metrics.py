"""Where the numbers of a run go: JSON lines always, TensorBoard and W&B where a run asks for them.

A series is `train` (means over a few steps) or `held_out` (one evaluation). What a run that goes on
will do again is taken out of JSON lines, and hidden by TensorBoard.
"""

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        with (self.directory / FILES[series]).open("a") as file:
            file.write(json.dumps(row) + "\n")

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


def read_rows(file: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a file of JSON lines, without one that was cut short; none if absent."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text().splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def drop_rows_after(file: pathlib.Path, step: int) -> None:
    """Takes rows of steps that a restored run will do again out of a file of JSON lines."""
    if not file.is_file():
        return
    kept = [row for row in read_rows(file) if row["step"] <= step]
    if len(kept) < len(file.read_text().splitlines()):
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_together(file.parent, {file.name: text.encode()})


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    is_number = {k: isinstance(v, int | float) and k not in NOT_SHOWN for k, v in row.items()}
    return [(name, float(value)) for name, value in row.items() if is_number[name]]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
