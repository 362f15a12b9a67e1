"""Run files: Python with `get_config() -> Run`, or `-> AllocatorRun`, or `-> EvalRun`."""

import pathlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar

from mres_jax.config._allocator import AllocatorRun
from mres_jax.config._eval_run import EvalRun
from mres_jax.config._overrides import apply_overrides
from mres_jax.config._run import Run
from mres_jax.config._values import did_you_mean
from mres_jax.errors import ConfigError

T = TypeVar("T", bound=Run | AllocatorRun | EvalRun)


def load_run(
    path: str | PathLike, overrides: Sequence[str] = (), *, smoke: bool = False
) -> Run | AllocatorRun:
    """Returns the run that a run file describes.

    A run file is Python and is executed: load only files that you trust. `from_json` reads the
    resolved JSON of a run without executing anything.

    Args:
      path: of the run file.
      overrides: dotted overrides, see `apply_overrides`.
      smoke: apply the run's own `smoke` overrides first, and save beside the run, not in it:
        `-smoke` is added to `checkpoint.dir`.

    Raises:
      ConfigError: no such file, a file that fails, no `get_config`, or an override that does not
        fit.
    """
    run = _read(path, Run, AllocatorRun)
    if smoke:
        run = _smoked(run, {"checkpoint.dir": f"{run.checkpoint.dir}-smoke"})
    return apply_overrides(run, overrides)


def load_eval_run(
    path: str | PathLike, overrides: Sequence[str] = (), *, smoke: bool = False
) -> EvalRun:
    """Returns the evaluation that a run file describes; everything else is as for `load_run`.

    `smoke` adds `-smoke` to `out`.
    """
    run = _read(path, EvalRun)
    if smoke:
        run = _smoked(run, {"out": f"{run.out}-smoke"})
    return apply_overrides(run, overrides)


def _read(path: str | PathLike, *kinds: type[T]) -> T:
    place = pathlib.Path(path)
    return _get_config(place, _execute(place), kinds)


def _smoked(run: T, beside: Mapping[str, str]) -> T:
    return apply_overrides(run, [f"{k}={v}" for k, v in {**beside, **run.smoke}.items()])


def _execute(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        known = [str(file) for file in sorted(path.parent.glob("*.py"))]
        raise ConfigError(f"{path}: no such run file.{did_you_mean(str(path), known)}")
    names: dict[str, Any] = {"__name__": "mres_run_file", "__file__": str(path)}
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    except Exception as error:
        raise _failed(path, error) from error
    return names


def _get_config(path: pathlib.Path, names: dict[str, Any], kinds: tuple[type[T], ...]) -> T:
    make, wanted = names.get("get_config"), kinds[0].__name__
    if not callable(make):
        raise ConfigError(
            f"{path}: has no get_config(); a run file defines get_config() -> {wanted}."
        )
    try:
        run = make()
    except ConfigError:
        raise
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(run, kinds):
        article = "an" if wanted[0] in "AEIOU" else "a"
        raise ConfigError(
            f"{path}: get_config() returned a {type(run).__name__}, not {article} {wanted}."
        )
    return run


def _failed(path: pathlib.Path, error: Exception) -> ConfigError:
    """One line for whatever a run file raised, with the line of that file."""
    line = getattr(error, "lineno", None)
    for frame, number in traceback.walk_tb(sys.exc_info()[2]):
        if frame.f_code.co_filename == str(path):
            line = number
    reason = str(error).splitlines()[0] if str(error) else "no message"
    return ConfigError(f"{path}:{line or '?'}: {type(error).__name__}: {reason}")
