"""How many pictures a second the complexity measures take.

python experiments/benchmarks/complexity.py

Generated documents of all sizes and kinds, in memory, one and two processes; the numbers are the
same.
"""

import argparse
import time

from measure import write_result

from mres_jax.data.documents.sets import make_set
from mres_jax.resolution.complexity import COMPLEXITIES, measure_images


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--note", action="append", default=[], help="under the table")
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    args = parser.parse_args()
    images = [document.image for document in make_set(0, args.pictures)]
    mean = sum(image.shape[0] * image.shape[1] for image in images) / len(images) / 1e6
    rows = []
    for name in COMPLEXITIES:
        measure_images(images[:2], name)
        for workers in (1, 2):
            start = time.perf_counter()
            measure_images(images, name, workers=workers)
            rate = len(images) / (time.perf_counter() - start)
            row = {"measure": name, "processes": workers, "images/s": round(rate, 1)}
            rows.append(row | {"minutes for 10,000": round(10_000 / rate / 60, 1)})
            print(row, flush=True)
    if not args.dry:
        write_result(
            "complexity",
            rows,
            title="Image complexity",
            about=f"{len(images)} generated documents of {mean:.2f} MPix on average, in memory; "
            "two processes are started anew, which is in the time.",
            dtype="float64",
            notes=args.note,
        )


if __name__ == "__main__":
    main()
