"""What a prompt says of a clip: how many frames it has, how long it is, when each is seen."""

import datetime
from collections.abc import Sequence

from mres_jax.data.spec import ChatTemplate

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def clip_texts(
    template: ChatTemplate, times: Sequence[float], *, num_frames: int, seconds: float
) -> list[str]:
    """Returns the texts about a clip: before all, before and behind each view, behind all.

    Args:
      template: of the model.
      times: of each view, seconds.
      num_frames: that are seen.
      seconds: of the whole clip.
    """
    # A rate times a count may come out a rounding below a whole second.
    whole = datetime.timedelta(seconds=int(round(seconds, 6)))
    texts = [template.clip_open.format(count=number_words(num_frames), length=whole)]
    for time in times:
        minutes, rest = divmod(int(round(time, 6)), 60)
        texts.append(template.frame_open.format(seconds=time, clock=f"{minutes:02d}:{rest:02d}"))
        texts.append(template.frame_close)
    return [*texts, template.clip_close]


def joined_texts(
    template: ChatTemplate, times: Sequence[float], *, num_frames: int, seconds: float
) -> tuple[str, str]:
    """Returns what stands before the first and behind the last view; arguments as `clip_texts`."""
    texts = clip_texts(template, times, num_frames=num_frames, seconds=seconds)
    return texts[0] + texts[1], texts[-2] + texts[-1]


def number_words(number: int) -> str:
    """Returns a whole number below a million in words, as num2words does.

    Example:
      >>> number_words(64), number_words(1_101)
      ('sixty-four', 'one thousand, one hundred and one')
    """
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[rest]}" if rest else "")
    size, name = (100, "hundred") if number < 1_000 else (1_000, "thousand")
    above, rest = divmod(number, size)
    text = f"{number_words(above)} {name}"
    if not rest:
        return text
    return text + (" and " if rest < 100 else ", ") + number_words(rest)
