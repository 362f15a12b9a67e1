"""The same logits from live `transformers`, where it is installed: the last word of `mres doctor`.

The only module of the library, besides converters, that knows torch; it is imported inside.
"""

import importlib
import importlib.util
import os
import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.documents import make_document
from mres_jax.data.packing import pack
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Example, Rung
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.device import free_memory, stored_bytes
from mres_jax.inference.doctor import Check
from mres_jax.models.registry import family_of
from mres_jax.models.tower_config import TowerConfig
from mres_jax.resolution.policies import parse_policy

TOLERANCE = 1e-3  # of the largest logit, float32: rounding over some thirty layers stays far below
MULTIPLE = 128  # of packed lengths
POLICY, QUESTION = "budget:64", "What is the total?"


def check_parity(directory: str | os.PathLike[str], answerer: LocalAnswerer) -> Check:
    """Compares logits of one page and question, float32 on both sides.

    Skipped, with what is missing, for checkpoints of our own, without torch and transformers, for
    families that transformers does not have, and where memory would not hold a second copy.
    """
    reason = _why_not(pathlib.Path(directory), answerer.model)
    if reason:
        return Check("transformers", "skipped", reason)
    example = _example(answerer)
    ours, theirs = _our_logits(answerer.model, example), _their_logits(directory, answerer, example)
    largest = float(np.abs(theirs).max())
    difference = float(np.abs(ours - theirs).max())
    agree = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    close = difference <= TOLERANCE * largest and agree == 1.0
    return Check(
        "transformers",
        "ok" if close else "failed",
        f"largest logit difference {difference:.2g} (logits up to {largest:.3g}), best token "
        f"the same at {agree:.1%} of {len(ours)} positions",
    )


def _why_not(directory: pathlib.Path, model: Any) -> str | None:
    if not (directory / "config.json").is_file():
        return "a checkpoint of ours; logits are compared for Hugging Face directories"
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed; `pip install mres-jax[hf]` lets logits be compared"
    transformers: Any = importlib.import_module("transformers")
    if not isinstance(model.config.vision_config, TowerConfig):
        return f"pixels of {type(model).__name__} are made another way; tests/parity compares it"
    if not hasattr(transformers, family_of(model.config).architecture):
        return f"transformers has no {type(model).__name__}; tests/parity compares its parts"
    if any(leaf.dtype != np.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))):
        return "the model is not in float32 here, for want of memory"
    needed, free = 2.5 * stored_bytes(directory), free_memory()
    if free is not None and needed > free:
        return f"a second copy in float32 needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return None


def _example(answerer: LocalAnswerer) -> Example:
    page = make_document(0, kind="invoice", area_bin="D", ratio_bin="NM")
    views = parse_policy(POLICY)([page.size], QUESTION, answerer.spec)
    return assemble(
        [page.image],
        views,
        prompt_messages(QUESTION, num_images=1),
        answerer.spec,
        answerer.tokenizer,
        generation_prompt=True,
    )


def _our_logits(model: Any, example: Example) -> np.ndarray:
    """`float32 [t V]`."""
    size = example.size
    rung = Rung(
        max_patches=-(-size.num_patches // MULTIPLE) * MULTIPLE,
        max_tokens=-(-size.num_tokens // MULTIPLE) * MULTIPLE,
        max_views=size.num_views,
        max_examples=1,
    )
    with jax.default_matmul_precision("float32"):  # accelerators round to less by themselves
        packed = jax.tree.map(jax.numpy.asarray, pack([example], rung))
        hidden = model.hidden(packed)[: size.num_tokens]
        return np.asarray(model.logits(hidden), np.float32)


def _their_logits(
    directory: str | os.PathLike[str], answerer: LocalAnswerer, example: Example
) -> np.ndarray:
    """`float32 [t V]`."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    cls = getattr(transformers, family_of(answerer.model.config).architecture)
    model = cls.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()
    return torch_logits(model, example, answerer.spec)


def torch_logits(model: Any, example: Example, spec: ProcessorSpec) -> np.ndarray:
    """Logits `float32 [t V]` of a model of `transformers`, float32, for one example of stills."""
    torch: Any = importlib.import_module("torch")
    pixels = example.patches.astype(np.float32).reshape(-1, 3, 1, spec.patch_size**2) / 255
    mean, std = (np.array(x, np.float32)[None, :, None, None] for x in (spec.mean, spec.std))
    pixels = ((pixels - mean) / std).repeat(spec.temporal_patch_size, axis=2)  # a still, twice
    tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
    with torch.no_grad():
        out = model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=torch.from_numpy(pixels.reshape(len(pixels), -1)),
            image_grid_thw=torch.tensor([list(grid) for grid in example.grids]),
            mm_token_type_ids=(tokens == spec.image_token_id).int(),
        )
    return out.logits[0].float().numpy()
