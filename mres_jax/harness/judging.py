"""HR-Bench in lmms-eval without its judge.

There, an answer that names no option is sent to a model on the network. Here it is wrong, as it is
where the judge finds none either.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

NONE = "Z"  # what the benchmark's judge says where no option is meant


def hrbench_process_results(document: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Returns what the task's own function does, but never asks a judge.

    Reference:
      lmms-eval 0.7.3, tasks/hrbench/utils.py; its rules read the option.
    """
    utils: Any = importlib.import_module("lmms_eval.tasks.hrbench.utils")
    options = utils.hrbench_doc_to_options(document)
    said = utils.hrbench_evaluator.can_infer(results[0].strip(), options) or NONE
    right = int(said.lower() == document["answer"].lower())
    score = {
        "index": document["index"],
        "cycle_category": document["cycle_category"],
        "gpt_score": right,
    }
    return {document["category"]: score, "average": score}
