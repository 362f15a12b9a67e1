"""Coarse features of frames and question from a frozen model of ours, for an allocator.

Every frame is squashed into a square of 8 x 8 visual tokens; the question is read by the decoder as
plain text, without a template.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import pack
from mres_jax.data.positions import rotary_positions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.errors import PolicyError, PromptError
from mres_jax.geometry import Grid, Size
from mres_jax.inference import cost
from mres_jax.inference.generate import ONE_AT_A_TIME
from mres_jax.inference.programs import arrange
from mres_jax.models.vlm import PackedVLM
from mres_jax.resolution.allocator.config import TOKENS_PER_FRAME
from mres_jax.resolution.uniform import whole_view

SIDE = 8  # visual tokens
CHUNK = 8  # frames that are encoded at a time, one compile for any number of them
QUESTION_STEP = 32  # tokens; questions are padded to a multiple


class Eyes:
    """A packed model as an `mres_jax.protocols.FeatureExtractor`.

    Attributes:
      name: what the model was loaded as.
    """

    def __init__(self, name: str, model: PackedVLM, spec: ProcessorSpec, tokenizer: Tokenizer):
        side = SIDE * spec.stride
        if spec.image_size not in (None, side) or "image" not in spec.accepts:
            raise PolicyError(
                f"allocator: {name} cannot look at {side} x {side} px, which it would have to for "
                f"{TOKENS_PER_FRAME} features per frame."
            )
        self.name, self.model, self.spec, self.tokenizer = name, model, spec, tokenizer

    @property
    def size(self) -> int:
        """Width of both kinds of features."""
        return self.model.config.text_config.hidden_size

    def features(
        self, frames: Sequence[np.ndarray], question: str
    ) -> tuple[Float[np.ndarray, "t l d"], Float[np.ndarray, "q d"]]:
        """Returns frame features `[t, 64, d]` and question features `[q, d]`, float32.

        Args:
          frames: upright RGB, `uint8 [h w 3]`, of any sizes.
          question: the user's text.

        Raises:
          PromptError: an empty question.
        """
        with ONE_AT_A_TIME:
            chunks = [self._encode(frames[at : at + CHUNK]) for at in range(0, len(frames), CHUNK)]
            return np.concatenate(chunks), self._read(question)

    def flops(self, num_frames: int, question: str) -> float:
        """Returns what `features` costs, padding left out."""
        config = self.model.config
        side = SIDE * self.spec.merge_size
        grids = [Grid(1, side, side)] * num_frames
        length = len(self.tokenizer.encode_text(question))
        return cost.encoder_flops(config, grids) + cost.text_flops(config.text_config, [length], 0)

    def _encode(self, frames: Sequence[np.ndarray]) -> Float[np.ndarray, "t l d"]:
        side = SIDE * self.spec.stride
        messages = prompt_messages("?", num_images=1)
        examples = [
            assemble(
                [frame],
                [whole_view(0, Size(*frame.shape[:2]), Size(side, side))],
                messages,
                self.spec,
                self.tokenizer,
            )
            for frame in frames
        ]
        parts, _, run = arrange(self.model)
        visual = run.encode(*parts, pack(examples, self._rung(examples[0])))
        rows = np.asarray(visual.tokens, np.float32).reshape(CHUNK, TOKENS_PER_FRAME, -1)
        return rows[: len(frames)]

    def _rung(self, example: Example) -> Rung:
        tokens = -(-CHUNK * len(example.tokens) // 16) * 16
        return Rung(
            max_patches=CHUNK * len(example.patches),
            max_tokens=tokens,
            max_views=CHUNK,
            max_examples=CHUNK,
        )

    def _read(self, question: str) -> Float[np.ndarray, "q d"]:
        tokens = np.asarray(self.tokenizer.encode_text(question), np.int32)
        if not len(tokens):
            raise PromptError("allocator: the question is empty; it decides what to look at.")
        spec = self.spec
        example = Example(
            tokens=tokens,
            slots=np.full(len(tokens), -1, np.int32),
            positions=rotary_positions(
                spec.position_rule, [len(tokens)], merge_size=spec.merge_size
            ),
            loss_mask=np.zeros(len(tokens), bool),
            patches=np.zeros((0, spec.patch_row_size), np.uint8),
            patch_positions=np.zeros((0, 2), np.int32),
            grids=(),
            views=(),
        )
        length = -(-len(tokens) // QUESTION_STEP) * QUESTION_STEP
        rung = Rung(max_patches=0, max_tokens=length, max_views=0, max_examples=1)
        hidden = _hidden(*nnx.split(self.model), pack([example], rung))
        return np.asarray(hidden, np.float32)[: len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def _hidden(graphdef, state, pack: Pack) -> Float[Array, "t e"]:
    """Hidden states of a pack of text."""
    return nnx.merge(graphdef, state).hidden(pack)
