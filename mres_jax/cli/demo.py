"""`mres demo`: questions under several policies, documents, pictures; or a text of your own."""

import argparse
import functools
import time

from mres_jax.cli._report import Place, find_model, open_model, progress
from mres_jax.cli._table import print_table
from mres_jax.errors import ConfigError
from mres_jax.files import check_directory

HEIGHT = 11  # px, of capitals, where none is given


def run(args: argparse.Namespace) -> int:
    """Runs the demo; what it finds goes to stdout and to `--out`."""
    start = time.monotonic()
    check_directory(args.out)
    if args.text is not None and args.questions is not None:
        raise ConfigError("demo: --questions is of the table; --text asks one. Leave one out.")
    if args.text is None and args.height is not None:
        raise ConfigError("demo: --height is of the capitals of --text; give --text too.")
    place = find_model(args.model)
    progress(f"demo: seed {args.seed}, loading {place.name}")
    if args.text is not None:
        return _own_text(args, place, start)
    # said before the heavy imports, which take seconds on a fresh machine
    from mres_jax.evaluation.asked_pages import Voice
    from mres_jax.evaluation.demo import run_demo

    voice = Voice(
        say=functools.partial(print, flush=True),
        show=lambda headers, rows, title: print_table(headers, rows, title=title),
        progress=progress,
    )
    result = run_demo(
        open_model(place).answerer,
        out=args.out,
        seed=args.seed,
        num_questions=args.questions,
        model_name=place.name,
        voice=voice,
    )
    seconds = time.monotonic() - start
    print(f"\nopen {result.files['index.html']} in a browser   done in {seconds:.0f} s")
    return 0


def _own_text(args: argparse.Namespace, place: Place, start: float) -> int:
    """Asks about a text of the user's own."""
    from mres_jax.evaluation.own_text import (
        ask_text,
        check_text,
        outside_of_training,
        own_rows,
    )

    height = HEIGHT if args.height is None else args.height
    text = check_text(args.text, height)
    result = ask_text(
        open_model(place).answerer,
        text,
        height,
        out=args.out,
        seed=args.seed,
        model_name=place.name,
    )
    title = f"{text}: capitals of {height} px, each word asked for on its own"
    print_table(*own_rows(result.readings, text), title=title)
    if args.model is None and (reason := outside_of_training(text)):
        progress(f"note: {place.name} was {reason}")
    print(f"\n{', '.join(map(str, result.files))}   done in {time.monotonic() - start:.0f} s")
    return 0
