"""What parity tests of models with squares and tiles share."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from peers import smallest_gap
from PIL import Image

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Example
from mres_jax.geometry import Size
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.resolution.policies import parse_policy

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def photograph(size: Sequence[int]) -> np.ndarray:
    rng = np.random.default_rng(list(size))
    height, width = size
    coarse = rng.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    noise = rng.integers(-40, 41, (height, width, 3))
    return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)


def prompt(ours: LocalAnswerer, images: Sequence[np.ndarray], policy: str | None = None) -> Example:
    sizes = [Size(*image.shape[:2]) for image in images]
    views = parse_policy(policy or ours.spec.default_policy)(sizes, "", ours.spec)
    messages = [Message(role="user", parts=(*range(len(images)), "what is the total?"))]
    return assemble(images, views, messages, ours.spec, ours.tokenizer, generation_prompt=True)


def scores(model: Any, packed: Any) -> np.ndarray:
    return np.asarray(_scores(*nnx.split(model), packed))


@functools.partial(jax.jit, static_argnums=0)
def _scores(graphdef: Any, state: Any, packed: Any) -> jax.Array:
    model = nnx.merge(graphdef, state)
    return model.logits(model.hidden(packed))


def greedy(
    model: Any, inputs: Mapping[str, Any], spec: ProcessorSpec, new_tokens: int
) -> tuple[list[int], float]:
    """Generated tokens, and the smallest gap between the two best scores of a step."""
    with torch.no_grad():
        out = model.generate(
            **inputs,
            generation_config=transformers.GenerationConfig(
                do_sample=False,
                max_new_tokens=new_tokens,
                eos_token_id=list(spec.eos_token_ids),
                pad_token_id=spec.pad_token_id,
                suppress_tokens=list(spec.reserved_token_ids),
                output_scores=True,
                return_dict_in_generate=True,
            ),
        )
    given = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    new = out.sequences[0, given:].tolist()
    return new, smallest_gap(torch.stack(out.scores)[:, 0])
