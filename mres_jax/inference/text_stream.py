"""The text of one answer while its tokens come in."""

from collections.abc import Sequence

from mres_jax.data.tokenizer import Tokenizer

_UNFINISHED = "\ufffd"  # how tokenizers write the bytes of a character that is not yet complete


class TextStream:
    """Text that grows by whole characters and ends before a stop text.

    What further tokens may still change is held back: the beginning of a character, and the
    beginning of a stop text.

    Attributes:
      text: the answer's so far, all that was given out.
      num_tokens: tokens that belong to it; with a stop text, up to the one that completes it.
      is_stopped: whether a stop text was met.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, opening: str = ""):
        """`opening` is what the template writes before an answer: the model does so too."""
        self._tokenizer, self._stop, self._opening = tokenizer, tuple(stop), opening
        self.text, self.num_tokens, self.is_stopped = "", 0, False

    def feed(self, token_ids: Sequence[int], *, is_last: bool = False) -> str:
        """Returns the text that is new.

        Args:
          token_ids: all tokens of the answer so far, those of earlier calls included.
          is_last: no more will come, so nothing is held back.
        """
        if self.is_stopped:
            return ""
        known, self.num_tokens = self.num_tokens, len(token_ids)
        if not is_last and self._opening.startswith(self._tokenizer.decode(token_ids)):
            return ""
        text = self._decoded(token_ids)
        at = self._find_stop(text)
        if at is not None:
            self.is_stopped = True
            self.num_tokens = self._tokens_to_stop(token_ids, known)
            return self._give(text[:at])
        return self._give(text if is_last else text[: len(text) - self._held_back(text)])

    def _decoded(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids).removeprefix(self._opening)

    def _give(self, text: str) -> str:
        new = text[len(self.text) :]
        self.text += new
        return new

    def _find_stop(self, text: str) -> int | None:
        """Where the stop text begins that is complete first, however the tokens came."""
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _tokens_to_stop(self, token_ids: Sequence[int], known: int) -> int:
        for count in range(known + 1, len(token_ids)):
            if self._find_stop(self._decoded(token_ids[:count])) is not None:
                return count
        return len(token_ids)

    def _held_back(self, text: str) -> int:
        """Characters at the end that may still change or be the beginning of a stop text."""
        whole = text.rstrip(_UNFINISHED)
        unfinished = len(text) - len(whole)
        begun = max((_begun(whole, stop) for stop in self._stop), default=0)
        return unfinished + begun


def _begun(text: str, stop: str) -> int:
    """Characters at the end of `text` that are the beginning of a stop text, but not all of it."""
    at = max(0, len(text) - len(stop) + 1)
    while (at := text.find(stop[0], at)) >= 0 and not stop.startswith(text[at:]):
        at += 1
    return len(text) - at if at >= 0 else 0
