"""Chooses one implementation of an op."""

import os
from collections.abc import Callable, Mapping
from typing import Any


def dispatch(
    op: str,
    implementations: Mapping[str, Callable[..., Any]],
    requested: str | None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Runs `requested`, or the first entry that accepts the call when it is None.

    An implementation declines a call by raising `NotImplementedError`. A request by name never
    falls back to another one. Where the call names none, the environment may, when the call is
    traced: `MRES_VARLEN_ATTENTION=pallas_triton`, for an op `varlen_attention`.

    Raises:
      ValueError: `requested` is not a name of `implementations`.
      ExceptionGroup: `requested` is None and every implementation declined; holds one
        `NotImplementedError` per implementation, its name in a note.
    """
    variable = f"MRES_{op.upper()}"
    by_whom = "" if requested is not None else f" in {variable}"
    requested = requested if requested is not None else os.environ.get(variable)
    if requested is not None:
        if requested not in implementations:
            raise ValueError(
                f"{op}: unknown implementation {requested!r}{by_whom}; have "
                f"{sorted(implementations)}."
            )
        return implementations[requested](*args, **kwargs)
    declined = []
    for name, implementation in implementations.items():
        try:
            return implementation(*args, **kwargs)
        except NotImplementedError as error:
            error.add_note(f"implementation={name!r}")
            declined.append(error)
    raise ExceptionGroup(f"{op}: no implementation accepts this call", declined)
