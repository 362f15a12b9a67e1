"""mres-tiny under budgets, a fixed cost, half a scale and no picture at all, on fresh documents.

mres eval configs/tiny/evaluate.py && mres report runs/eval-tiny
"""

from mres_jax.config import EvalRun, Generated


def get_config() -> EvalRun:
    return EvalRun(
        name="mres-tiny",
        out="runs/eval-tiny",
        tasks=(Generated(num_questions=1_000),),
        models={"mres-tiny": "mres-tiny"},
        policies=(
            "native",
            "budget:{budget}",
            "fixed,tokens={budget}",
            "scale:0.5",
            "no picture",
        ),
        budgets=(64, 128, 256),
        seeds=(2_026,),
        smoke={"tasks.0.num_questions": "20", "budgets": "64"},
    )
