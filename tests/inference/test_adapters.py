"""A model answers through its adapters as it does once they are merged."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import nn
from mres_jax.data.types import Rung
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.protocols import Request, Sampling

LADDER = (Rung(max_patches=128, max_tokens=128, max_views=2, max_examples=2),)


@pytest.mark.slow
def test_adapters_answer_as_the_merged_model(qwen):
    model, spec, tokenizer = qwen.tiny
    adapted = nnx.clone(model)
    names = [name for name in nn.linear_layers(adapted) if not name.startswith("vision.merger")]
    nn.add_lora(adapted, names, rank=2, scale=2.0, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for name in names:
        factor = nn.linear_layers(adapted)[name].lora_b
        factor[...] = jnp.asarray(0.1 * draw.normal(size=factor.shape), jnp.float32)
    image = draw.integers(0, 256, (24, 40, 3), np.uint8)
    request = Request(id="q", images=[image], question="what is the total", policy="native")
    answers = []
    for one in (model, adapted, nn.merge_lora(adapted)):
        answerer = LocalAnswerer(one, spec, tokenizer, ladder=LADDER, rows=(1,))
        ((answer,),) = answerer.answer([request], sampling=Sampling(max_new_tokens=6))
        answers.append(answer)
    plain, through, merged = answers
    assert through.token_ids == merged.token_ids != plain.token_ids
    # float32 sums in another order, through four layers
    np.testing.assert_allclose(through.logprobs, merged.logprobs, atol=1e-4)
