"""`python -m mres_jax.harness OUT TASK=COPY...`: task files of lmms-eval for local copies."""

import sys

from mres_jax.errors import MresError
from mres_jax.harness.task_files import write_task_files


def main(words: list[str]) -> int:
    """Writes the files and names the tasks; 2 where it cannot be done."""
    if len(words) < 2 or not all("=" in word for word in words[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        names = write_task_files(words[0], dict(word.split("=", 1) for word in words[1:]))
    except MresError as error:
        print(f"mres: {error}", file=sys.stderr)
        return 2
    print(f"lmms-eval eval --include_path {words[0]} --tasks {','.join(names)} --model mres_jax")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
