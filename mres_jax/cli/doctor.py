"""`mres doctor`: a report of the machine and, with `--model`, of a model."""

import argparse
import json
from collections.abc import Iterator

from mres_jax.cli._report import Place, find_model, open_model, progress
from mres_jax.inference.doctor import Check, check_machine, check_model, is_healthy
from mres_jax.inference.oracle import check_parity


def run(args: argparse.Namespace) -> int:
    """Prints one line per check; 1 when one failed."""
    place = find_model(args.model) if args.model else None
    checks = []
    for check in _checks(place):
        checks.append(check)
        if not args.json:
            print(check, flush=True)
    healthy = is_healthy(checks)
    if args.json:
        content = {"healthy": healthy, "checks": [check._asdict() for check in checks]}
        print(json.dumps(content, indent=2))
    failed = [check.name for check in checks if check.state == "failed"]
    progress("all well" if healthy else f"failed: {', '.join(failed)}")
    return 0 if healthy else 1


def _checks(place: Place | None) -> Iterator[Check]:
    yield from check_machine()
    if place is None:
        return
    try:
        vlm = open_model(place, exact=True)
    except Exception as error:
        yield Check.of_error("keys", error)
        return
    yield from check_model(vlm.answerer)
    yield Check.run("transformers", lambda: check_parity(place.directory, vlm.answerer))
