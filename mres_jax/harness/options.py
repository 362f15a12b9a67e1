"""How a harness's task wants its answers generated -> `Sampling`.

An option that would change the answer and cannot be followed is refused, never ignored.
"""

from collections.abc import Mapping
from typing import Any

from mres_jax.errors import MresError, suggest
from mres_jax.protocols import Sampling

LENGTHS = ("max_new_tokens", "max_gen_toks", "max_tokens")
READ = (*LENGTHS, "until", "do_sample", "temperature", "top_p", "top_k")
# Options that are known, and the values at which they change nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1),
    "length_penalty": (None, 1),
    "num_return_sequences": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "min_new_tokens": (None, 0),
}
# How other models are called, never what is drawn; how a picture is cut is the policy's say.
WITHOUT_EFFECT = ("use_cache", "image_aspect_ratio", "return_dict_in_generate")


def to_sampling(options: Mapping[str, Any], *, max_new_tokens: int, name: str) -> Sampling:
    """Returns how answers are drawn; greedy, unless the task asks for a temperature.

    Args:
      options: `generation_kwargs` of the task.
      max_new_tokens: where the task names no length.
      name: of the question, for errors.

    Raises:
      MresError: an option that cannot be followed, or is not known; numbers that cannot be.
    """
    for key, value in options.items():
        if key in NEUTRAL and value not in NEUTRAL[key]:
            raise MresError(f"{name}: {key}={value!r} cannot be done here. Leave it out.")
        if key not in (*READ, *NEUTRAL, *WITHOUT_EFFECT):
            near = suggest(key, READ)
            raise MresError(f"{name}: generation option {key!r} is not known here{near}.")
    lengths = {options[key] for key in LENGTHS if options.get(key) is not None}
    if len(lengths) > 1:
        raise MresError(f"{name}: {' and '.join(LENGTHS)} differ. Give one.")
    heat = options.get("temperature")
    is_greedy = options.get("do_sample") is False or (heat is None and not options.get("do_sample"))
    try:
        temperature = 0.0 if is_greedy else float(1.0 if heat is None else heat)
        is_greedy = temperature == 0  # then neither `top_p` nor `top_k` changes anything
        top_k = int(_or(options.get("top_k"), 0))
        return Sampling(
            temperature=temperature,
            top_p=1.0 if is_greedy else _or(options.get("top_p"), 1.0),
            top_k=0 if is_greedy or top_k == -1 else top_k,  # vLLM writes -1 for all
            max_new_tokens=int(lengths.pop()) if lengths else max_new_tokens,
            stop=_stops(options.get("until"), name),
        )
    except (TypeError, ValueError) as error:
        raise MresError(f"{name}: {error}") from None


def _or(value: Any, default: float) -> float:
    return default if value is None else float(value)


def _stops(value: Any, name: str) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or ()
    if not all(isinstance(stop, str) for stop in stops):
        raise MresError(f"{name}: until={value!r} is no text and no list of texts.")
    return tuple(dict.fromkeys(stop for stop in stops if stop))
