"""Text <-> token ids, with two doors: one for trusted text and one for what users write.

Trusted text (chat templates) may contain control tokens such as `<|im_start|>`. In users' text the
same characters are only characters: an `<|image_pad|>` that somebody typed stays text.
`build_tiny_tokenizer` makes a small one from a word list.
"""

import json
import re
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from mres_jax.errors import CheckpointError, ConfigError

FILE = "tokenizer.json"
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)  # of the tiny tokenizer, as in Qwen2-VL
MAX_VOCAB_SIZE = 1_000  # of the tiny tokenizer


class Tokenizer:
    """A `tokenizers.Tokenizer` behind the two doors. Nothing is truncated, padded or prefixed.

    Args:
      tokenizer: any fast tokenizer; it is copied.
      source: the text of its `tokenizer.json`, where `to_bytes` shall give back the same.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, source: str | None = None):
        self._source = tokenizer.to_str() if source is None else source
        self._trusted = _prepare(self._source)
        self._plain = _prepare(_all_control_tokens_special(self._source))
        self._plain.encode_special_tokens = True

    def __reduce__(self):
        return _from_source, (self._source,)

    @classmethod
    def parse(cls, content: bytes, where: object) -> "Tokenizer":
        """Reads the bytes of a `tokenizer.json`; `where` names them in errors.

        Raises:
          CheckpointError: they are not a tokenizer.
        """
        try:
            source = content.decode()
            return _from_source(source)
        except Exception as error:  # `tokenizers` raises bare Exception
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            reason = " ".join(reason.split())
            raise CheckpointError(
                f"tokenizer: {where} is not a tokenizer ({reason}). Copy the model's {FILE} again."
            ) from None

    def encode_trusted(self, text: str) -> list[int]:
        """Ids of a template's text: control tokens are recognised."""
        return self._trusted.encode(text, add_special_tokens=False).ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of a user's text: control tokens written in it stay text."""
        return self._plain.encode(text, add_special_tokens=False).ids

    def encode_text_with_starts(self, text: str) -> tuple[list[int], list[int]]:
        """`encode_text`, and the character of `text` that each token begins with."""
        encoded = self._plain.encode(text, add_special_tokens=False)
        return encoded.ids, [start for start, _ in encoded.offsets]

    def count_text(self, texts: Sequence[str]) -> list[int]:
        """Lengths of `encode_text` of many texts, counted together."""
        encoded = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(each) for each in encoded]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of ids."""
        return self._trusted.decode(list(ids), skip_special_tokens=skip_special)

    def token_id(self, name: str) -> int:
        """Id of one token, for example `<|image_pad|>`.

        Raises:
          CheckpointError: the vocabulary does not have it.
        """
        token_id = self.find(name)
        if token_id is None:
            raise CheckpointError(
                f"tokenizer: no token {name!r} among {self.vocab_size}. Is this {FILE} of another "
                "model?"
            )
        return token_id

    def find(self, name: str) -> int | None:
        """Id of one token, or None where the vocabulary does not have it."""
        return self._trusted.token_to_id(name)

    @property
    def vocab_size(self) -> int:
        """Tokens, control tokens included; a model's embedding may have more rows."""
        return self._trusted.get_vocab_size(with_added_tokens=True)

    @property
    def control_token_ids(self) -> frozenset[int]:
        """Ids that only trusted text can produce."""
        added = self._plain.get_added_tokens_decoder()
        return frozenset(i for i, token in added.items() if token.special)

    def to_bytes(self) -> bytes:
        """The contents of its `tokenizer.json`, the same bytes that were loaded."""
        return self._source.encode()


def _from_source(source: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(source), source=source)


def _prepare(source: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(source)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _all_control_tokens_special(source: str) -> str:
    """Marks every `<|...|>` as special: only special ones can be switched off for users' text."""
    content = json.loads(source)
    for token in content.get("added_tokens") or ():
        text = token.get("content", "")
        token["special"] = token.get("special", False) or (
            text.startswith("<|") and text.endswith("|>")
        )
    return json.dumps(content)


def build_tiny_tokenizer(words: Iterable[str], characters: str = "") -> tokenizers.Tokenizer:
    """Returns a byte-level BPE whose words are one token each and whose values are spelled out.

    A run of letters is one token if it is exactly one of `words`, with or without the space before
    it; anything else is spelled character by character, so digits, capitals and punctuation of a
    value are one token each. Characters beyond ASCII are bytes unless named in `characters`.

    Args:
      words: runs of letters; case matters.
      characters: characters beyond ASCII that shall be one token each.

    Raises:
      ConfigError: a word holds something else than letters, or the vocabulary would reach 1,000.

    Example:
      >>> tokenizer = build_tiny_tokenizer(["total", "What"])
      >>> tokenizer.encode("What total A7?").tokens
      ['What', 'Ġtotal', 'Ġ', 'A', '7', '?']
    """
    words = sorted(set(words))
    bad = [word for word in words if not re.fullmatch(r"[^\W\d_]+", word)]
    if bad:
        raise ConfigError(f"tiny tokenizer: words must be runs of letters, got {bad[:5]}.")
    vocab = {_BYTE_SYMBOLS[byte]: byte for byte in range(256)}
    merges: list[tuple[str, str]] = []
    for character in sorted(set(characters)):
        symbols = _symbols(character)
        for end in range(1, len(symbols)):
            pair = (symbols[:end], symbols[end])
            if pair not in merges:
                merges.append(pair)
                vocab.setdefault("".join(pair), len(vocab))
    for word in words:
        for text in (word, f" {word}"):
            vocab.setdefault(_symbols(text), len(vocab))
    size = len(vocab) + len(CONTROL_TOKENS)
    if size >= MAX_VOCAB_SIZE:
        raise ConfigError(
            f"tiny tokenizer: {len(words)} words make {size} tokens, but fewer than "
            f"{MAX_VOCAB_SIZE} are allowed. Give fewer words."
        )
    return _build(vocab, merges)


def _build(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    # `ignore_merges` looks a whole run of letters up before it is spelled out: words need no
    # intermediate merges, which would otherwise join letters of values too.
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r" ?\p{L}+|\s|."), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            tokenizers.AddedToken(name, special=True, normalized=False, single_word=False)
            for name in CONTROL_TOKENS
        ]
    )
    return tokenizer


def _byte_symbols() -> list[str]:
    """A printable character per byte, as byte-level BPE files write them.

    Printable Latin-1 bytes stand for themselves, the others for U+0100 and up, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(0x100 + i) for i in range(256))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


_BYTE_SYMBOLS = _byte_symbols()


def _symbols(text: str) -> str:
    return "".join(_BYTE_SYMBOLS[byte] for byte in text.encode())
