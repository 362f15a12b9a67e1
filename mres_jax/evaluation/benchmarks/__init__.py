"""Public benchmarks of high-resolution pictures, from local files in their released form.

Names are those of lmms-eval: `screenspot_pro`, `hrbench4k`, `hrbench8k`, `vstar_bench`.
"""

from mres_jax.evaluation.benchmarks.hr_bench import (
    load_hr_bench as load_hr_bench,
    score_hr_bench as score_hr_bench,
)
from mres_jax.evaluation.benchmarks.screenspot_pro import (
    hits_element as hits_element,
    load_screenspot_pro as load_screenspot_pro,
    score_screenspot_pro as score_screenspot_pro,
)
from mres_jax.evaluation.benchmarks.shares import window_recall as window_recall
from mres_jax.evaluation.benchmarks.vstar import (
    load_vstar as load_vstar,
    score_vstar as score_vstar,
)
