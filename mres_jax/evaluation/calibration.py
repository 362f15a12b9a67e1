"""How sure a narrow model is inside its domain, measured before it is shipped."""

import math
from collections.abc import Sequence

from mres_jax.evaluation.trials import Trial, draw_questions, run_trials
from mres_jax.inference.domain import Domain, mean_logprob
from mres_jax.protocols import Answerer

QUANTILE = 0.01  # of the questions inside, this share gets a note for nothing


def measure_domain(
    answerer: Answerer,
    *,
    name: str,
    knows: str = "generated invoices, tables, signs and screens",
    seed: int = 0,
    num_questions: int = 400,
) -> Domain:
    """Returns what is to be kept with a model that reads documents.

    Fresh documents of all 35 cells are asked about at native resolution; `min_logprob` is the
    lowest one in a hundred of the mean log-probabilities of the answers.

    Args:
      answerer: of the model.
      name: of the model.
      knows: its domain in a few words.
      seed: of documents and questions.
      num_questions: more make the limit firmer.
    """
    drawn = draw_questions(seed, num_questions)
    questions = ((document.image, question) for document, question in drawn)
    trials = run_trials(answerer, questions, ["native"])
    return Domain(name=name, knows=knows, min_logprob=lowest_logprob(trials))


def lowest_logprob(trials: Sequence[Trial]) -> float:
    """Returns the `QUANTILE` of the mean log-probabilities, nats per token, rounded down."""
    values = sorted(mean_logprob(trial.answer) for trial in trials)
    return math.floor(100 * values[int(QUANTILE * len(values))]) / 100
