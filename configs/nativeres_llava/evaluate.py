"""The study with the real model: native, tiles and one square, each asked as it was trained.

mres eval configs/nativeres_llava/evaluate.py && mres report runs/nativeres-llava-study

Needs `stage2.py`, `stage2_tiles.py` and `stage2_fixed.py` trained, and two sets, of questions that
need reading (RC) and of such that do not (SC):

    mres rcbench make rc.jsonl -o data/rcbench --per-cell 50
    mres rcbench make sc.jsonl -o data/scbench --per-cell 50

The released pictures of RC-Bench, should there be any, are `mres rcbench make FILE -o data/rcbench
--all`. `--policies='["native", "tiles:252,max=4", "fixed:532"]'` asks every model under all three,
in another `--out`.
"""

from mres_jax.config import Benchmark, EvalRun


def get_config() -> EvalRun:
    return EvalRun(
        name="nativeres-llava",
        out="runs/nativeres-llava-study",
        tasks=(
            Benchmark(name="rcbench", path="data/rcbench", label="rc"),
            Benchmark(name="rcbench", path="data/scbench", label="sc"),
        ),
        models={
            "native": "runs/nativeres-llava-stage2",
            "tiles": "runs/nativeres-llava-stage2-tiles",
            "fixed": "runs/nativeres-llava-stage2-fixed",
        },
        policies=(),  # what each was trained with
        suffix="\nAnswer the question using a single word or phrase.",
        dtype="bfloat16",
        smoke={"limit": "4", "max_new_tokens": "4"},
    )
