"""What rollouts earn: choices, numbers, free text, spans of time, and the form of an answer."""

from mres_jax.rewards._choices import (
    choice_f1 as choice_f1,
    choice_match as choice_match,
)
from mres_jax.rewards._numbers import (
    number_closeness as number_closeness,
    number_match as number_match,
    parse_number as parse_number,
)
from mres_jax.rewards._overlap import (
    rouge_l as rouge_l,
    rouge_mean as rouge_mean,
    rouge_n as rouge_n,
    word_accuracy as word_accuracy,
)
from mres_jax.rewards._rewards import (
    Reward as Reward,
    RewardRules as RewardRules,
    answer_format as answer_format,
    final_answer as final_answer,
    reward as reward,
)
from mres_jax.rewards._spans import (
    Grounding as Grounding,
    Span as Span,
    best_span_iou as best_span_iou,
    grounding as grounding,
    parse_span as parse_span,
    span_iou as span_iou,
)
