"""What can be got right without a picture: the share of a guesser who knows the question."""

import collections

from mres_jax.data.documents import item_seed
from mres_jax.evaluation.trials import draw_questions
from mres_jax.scoring import exact_match

SEED = 3_000  # distance of the seeds from the user's; no document of the table is drawn again
QUESTIONS = 1_000


def guess_shares(seed: int, *, num_questions: int = QUESTIONS) -> dict[str, float]:
    """Returns the exact match of the best constant answers, by type of question.

    For each question as it is worded the most common answer is learned on so many fresh questions,
    and scored on as many others. Nothing else is to be known without the picture, for the answers
    are drawn independently of all but the topic.

    Args:
      seed: of the documents.
      num_questions: learned on, and scored.
    """
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for _, question in draw_questions(item_seed(seed, SEED), num_questions):
        counts[question.text][question.answer] += 1
    best = {text: counter.most_common(1)[0][0] for text, counter in counts.items()}
    right: dict[str, list[float]] = {}
    for _, question in draw_questions(item_seed(seed, SEED + 1), num_questions):
        score = exact_match(best.get(question.text, ""), [question.answer])
        right.setdefault(question.type, []).append(score)
    return {kind: sum(scores) / len(scores) for kind, scores in right.items()}
