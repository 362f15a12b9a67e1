"""One distribution by every path: prompts together or alone, sampler or learner, every family.

Float32, random weights; what differs is the order of sums.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.data.assemble import with_answer
from mres_jax.data.packing import pack
from mres_jax.data.types import Rung
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.training.allocator.backbone import BackboneLearner, TokenDecisions
from mres_jax.training.rl import PPO

pytestmark = pytest.mark.slow  # three compiles of everything for each family

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=12)
TOGETHER = Rung(max_patches=1_280, max_tokens=1_024, max_views=32, max_examples=4)
ALONE = Rung(max_patches=512, max_tokens=640, max_views=16, max_examples=1)
FAMILIES = {
    "qwen2_vl": lambda: testing.tiny_qwen2_vl(spread=1.5),
    "qwen2_5_vl": lambda: testing.tiny_qwen2_5_vl(spread=1.5),
    "qwen3_vl": lambda: testing.tiny_qwen3_vl(spread=1.5),
    "nativeres_llava": lambda: testing.tiny_nativeres_llava(spread=1.5),
    "naflex": testing.tiny_naflex,
    "smolvlm": testing.tiny_smolvlm,
    "llava": testing.tiny_llava,
    "llava_next": testing.tiny_llava_next,
    "llava_hr": lambda: testing.tiny_llava_hr(image_aspect_ratio="native"),
}


class Asked(NamedTuple):
    """Questions with their answers, in packs of a rung, and the answers to each alone."""

    tiny: testing.TinyModel
    rung: Rung
    answerer: LocalAnswerer
    requests: list[Request]
    together: list[Answer]
    alone: list[Answer]


@pytest.fixture(scope="module", params=FAMILIES)
def asked(request) -> Asked:
    tiny, draw = FAMILIES[request.param](), np.random.default_rng(0)

    def picture(height, width):
        return draw.integers(0, 256, (height, width, 3), np.uint8)

    items = [[picture(20, 30)], [picture(16, 16), picture(9, 40)], [], [picture(30, 12)]]
    if tiny.spec.video is not None:
        items[-1].append(testing.tiny_clip(1, 20, 30, frames=4))
    requests = [
        Request(id=f"{i}", question="what is the total " + "red " * i, images=some)
        for i, some in enumerate(items)
    ]

    canvases = tiny.spec.canvas.shapes if tiny.spec.canvas else ()
    large, small = (dataclasses.replace(rung, canvases=canvases) for rung in (TOGETHER, ALONE))

    def answers(rung, requests):
        answerer = LocalAnswerer(*tiny, ladder=(rung,), rows=(rung.max_examples,))
        return answerer, [some[0] for some in answerer.answer(requests, sampling=SAMPLING)]

    answerer, together = answers(large, requests)
    _, alone = answers(small, requests)
    return Asked(tiny, large, answerer, requests, together, alone)


def test_prompts_in_one_pack_are_answered_as_each_alone(asked):
    """Packs and caches of other lengths: the same tokens, log-probabilities within 1e-5."""
    assert len({answer.token_ids for answer in asked.together}) == len(asked.together)
    largest = 0.0
    for together, alone in zip(asked.together, asked.alone, strict=True):
        assert together.token_ids == alone.token_ids
        difference = np.abs(np.subtract(together.logprobs, alone.logprobs)).max()
        largest = max(largest, float(difference))
    print(f"largest difference of log-probabilities {largest:.3g}")
    assert largest <= 1e-5


def test_the_learner_finds_the_sampler_s_probabilities_and_misses_them_without_the_mask(asked):
    """Under temperature, top-p and the mask of placeholders: ratios within 1e-4 of 1."""
    examples, sampled = [], np.zeros(TOGETHER.max_tokens, np.float32)
    end = 0
    for request, answer in zip(asked.requests, asked.together, strict=True):
        examples.append(with_answer(asked.answerer.prompt(request), answer.token_ids))
        end += len(examples[-1].tokens)
        sampled[end - len(answer.token_ids) - 1 : end - 1] = answer.logprobs
    batch = TokenDecisions(pack(examples, asked.rung), sampled, np.zeros_like(sampled))
    mask = np.asarray(batch.loss_mask)
    assert mask.sum() == sum(len(answer.token_ids) for answer in asked.together)

    def off(reserved_token_ids):
        learner = BackboneLearner(
            asked.tiny.model,
            ppo=PPO(),
            sampling=SAMPLING,
            reserved_token_ids=reserved_token_ids,
            loss_chunk=64,
        )
        found = np.asarray(_logprobs(learner, batch))
        return float(np.abs(np.expm1(found - sampled))[mask].max())

    ratio = off(asked.tiny.spec.reserved_token_ids)
    print(f"largest distance of a ratio from 1: {ratio:.3g}")
    assert ratio < 1e-4
    assert off(()) > 1e-3


@nnx.jit
def _logprobs(learner, batch):
    return learner.logprobs(batch)
