"""Public benchmarks of pictures and videos, from local files in their released form.

Names are those of lmms-eval, but for `charades_sta`, which it calls temporal_grounding_charades.
"""

from mres_jax.evaluation.benchmarks.charades_sta import (
    load_charades_sta as load_charades_sta,
    score_charades_sta as score_charades_sta,
)
from mres_jax.evaluation.benchmarks.chartqa import load_chartqa as load_chartqa
from mres_jax.evaluation.benchmarks.docvqa import load_docvqa as load_docvqa
from mres_jax.evaluation.benchmarks.hr_bench import (
    load_hr_bench as load_hr_bench,
    score_hr_bench as score_hr_bench,
)
from mres_jax.evaluation.benchmarks.ocrbench import load_ocrbench as load_ocrbench
from mres_jax.evaluation.benchmarks.rules import (
    contains_answer as contains_answer,
    contains_formula as contains_formula,
    relaxed_match as relaxed_match,
    vqa_accuracy as vqa_accuracy,
)
from mres_jax.evaluation.benchmarks.screenspot_pro import (
    hits_element as hits_element,
    load_screenspot_pro as load_screenspot_pro,
    score_screenspot_pro as score_screenspot_pro,
)
from mres_jax.evaluation.benchmarks.shares import window_recall as window_recall
from mres_jax.evaluation.benchmarks.textvqa import load_textvqa as load_textvqa
from mres_jax.evaluation.benchmarks.videomme import load_videomme as load_videomme
from mres_jax.evaluation.benchmarks.vstar import (
    load_vstar as load_vstar,
    score_vstar as score_vstar,
)
