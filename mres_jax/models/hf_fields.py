"""Reads a `config.json` that a stranger wrote: field by field, every field accounted for.

A field is used, or known to change nothing that we compute, or known to change the model in a way
that we do not support (an error), or unknown (a warning that names it). No code that a file points
at is ever run.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mres_jax.errors import CheckpointError

# Training, generation and bookkeeping fields of Hugging Face configurations.
_HARMLESS = """
_attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
_from_model_config _name_or_path add_cross_attention architectures attention_dropout
attn_implementation bad_words_ids base_model_pp_plan base_model_tp_plan begin_suppress_tokens
bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
id2label initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length
max_window_layers min_length model_type no_repeat_ngram_size num_beam_groups num_beams
num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix
problem_type pruned_heads remove_invalid_values repetition_penalty return_dict
return_dict_in_generate sep_token_id sliding_window suppress_tokens task_specific_params
temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype
torchscript transformers_version typical_p use_bfloat16 use_cache video_token_id vision_token_id
"""
HARMLESS = frozenset(_HARMLESS.split())
MAX_SIZE = 2**24  # vocabulary rows, channels
MAX_LAYERS = 1_000
REFUSED = {
    "auto_map": "points at code, and code of a model directory is never run; remove the field if "
    "the model is a stock one",
    "quantization_config": "quantised weights are not read; use the unquantised model",
}


class Fields:
    """The fields of one JSON object, ticked off as they are read.

    Args:
      content: the object.
      where: what messages call it, for example `config.json` or `config.json: vision_config`.
    """

    def __init__(self, content: Mapping[str, Any], where: str):
        self.content = dict(content)
        self.where = where
        self.problems: list[str] = []
        self._seen: set[str] = set()

    def require(self, name: str, kind: type[Any] | tuple[type[Any], ...] = int) -> Any:
        """Value of a field that must be there."""
        value = self.get(name, None, kind)
        if value is None:
            raise CheckpointError(f"{self.where}: has no {name}.")
        return value

    def size(self, name: str, default: int | None = None, *, most: int = MAX_SIZE) -> int:
        """A count of at least 1 that must be there unless it has a default.

        A bound keeps a hostile file from asking for more layers or channels than could exist.
        """
        value = self.require(name) if default is None else self.get(name, default, int)
        if not 1 <= value <= most:
            raise CheckpointError(f"{self.where}: {name} is {value}, not 1 to {most}.")
        return value

    def get(self, name: str, default: Any, kind: Any = object) -> Any:
        """Value of a field, or `default` where it is absent or null."""
        self._seen.add(name)
        value = self.content.get(name)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if isinstance(value, bool) and bool not in kinds and object not in kinds:
            value_ok = False
        else:
            value_ok = isinstance(value, (*kinds, int) if float in kinds else kinds)
        if not value_ok:
            names = " or ".join(k.__name__ for k in kinds)
            raise CheckpointError(f"{self.where}: {name} is {value!r}, not {names}.")
        return value

    def expect(self, name: str, allowed: Collection[Any]) -> None:
        """Notes a problem unless a field is absent, null or one of `allowed`."""
        value = self.get(name, None)
        if value is not None and value not in allowed:
            have = ", ".join(map(repr, allowed))
            self.problems.append(f"{name} is {value!r}, have {have}")

    def child(self, name: str) -> "Fields":
        """The fields of a nested object; empty where it is absent."""
        return Fields(self.get(name, {}, dict), f"{self.where}: {name}")

    def ignore(self, names: Iterable[str]) -> None:
        """Ticks off fields that change nothing here."""
        self._seen.update(names)

    def close(self) -> None:
        """Ends the reading.

        Raises:
          CheckpointError: fields with values that would make it another model, all in one message.

        Warns:
          UserWarning: fields that are not known, all in one message.
        """
        for name, reason in REFUSED.items():
            if self.content.get(name) is not None:
                self.problems.append(f"{name} {reason}")
        if self.problems:
            raise CheckpointError(f"{self.where}: {'; '.join(self.problems)}.")
        known = self._seen | HARMLESS | REFUSED.keys()
        unknown = sorted(n for n, v in self.content.items() if n not in known and v is not None)
        if unknown:
            warnings.warn(
                f"{self.where}: unknown fields are ignored: {', '.join(unknown)}. If one of them "
                "changes the model, its answers are wrong.",
                stacklevel=2,
            )


def pixel_values(
    own: Fields, pixels: Fields, name: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Mean or std per colour channel: from the image processor, else from a field of ours."""
    value = pixels.get(name, own.get(name, list(default), list), list)
    if len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise CheckpointError(f"{pixels.where}: {name} is {value!r}, not three numbers.")
    return float(value[0]), float(value[1]), float(value[2])


def as_checkpoint_error(error: ValueError) -> CheckpointError:
    """A constructor's complaint about a file's values."""
    return error if isinstance(error, CheckpointError) else CheckpointError(f"config.json: {error}")
