"""What a user sees of a run: a line every few steps, and a bar with the time left on a terminal."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Bar(Protocol):
    """Shows how far a run is."""

    def step(self, step: int, row: Mapping[str, Any] | None = None) -> None:
        """A step is done; `row` where means were just taken."""
        ...


class _NoBar:
    def step(self, step: int, row: Mapping[str, Any] | None = None) -> None:
        pass


class _RichBar:
    def __init__(self, progress: Any, task: Any):
        self.progress, self.task = progress, task

    def step(self, step: int, row: Mapping[str, Any] | None = None) -> None:
        shown = {"shown": _numbers(row)} if row else {}
        self.progress.update(self.task, completed=step, **shown)


@contextlib.contextmanager
def progress_bar(name: str, *, first: int, last: int, shown: bool) -> Iterator[Bar]:
    """Yields a bar on stderr.

    Args:
      name: of the run.
      first, last: steps done before, and at the end.
      shown: whether to show it at all; it is for terminals.
    """
    if not shown:
        yield _NoBar()
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[shown]}", markup=False),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(
        *columns,
        console=Console(stderr=True),
        speed_estimate_period=600.0,  # s; steps may be long
        redirect_stdout=sys.stdout.isatty(),  # a file gets what was meant for it
    ) as progress:
        yield _RichBar(progress, progress.add_task(name, total=last, completed=first, shown=""))


def line(row: Mapping[str, Any], last: int) -> str:
    """A row of `Meter` as a line of the log; `last` is the step that the run ends with."""
    left = row["seconds_per_step"] * (last - row["step"])
    return (
        f"step {row['step']:5d}/{last} {_numbers(row)} {row['seconds_per_step']:.2f} s/step "
        f"{row['tokens_per_s']:,.0f} tokens/s wait {row['data_wait_share']:.0%} "
        f"left {duration(left)}"
    )


def duration(seconds: float) -> str:
    """Returns a time as people say it.

    Example:
      >>> duration(8), duration(200), duration(5_000), duration(200_000)
      ('8 s', '3 min', '1 h 23 min', '2 d 7 h')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _numbers(row: Mapping[str, Any]) -> str:
    formats = {"loss": ".3f", "accuracy": ".3f", "learning_rate": ".2e"}
    names = {"learning_rate": "lr"}
    shown = [f"{names.get(k, k)} {row[k]:{form}}" for k, form in formats.items() if k in row]
    if row.get("skipped"):
        shown.append(f"skipped {row['skipped']}")
    return " ".join(shown)
