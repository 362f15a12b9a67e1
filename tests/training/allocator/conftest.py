"""Runs of seconds: four frames of 16 px a question, a random Qwen2-VL, eyes without weights."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mres_jax.config import (
    AllocatorRun,
    CheckpointConfig,
    OptimizerConfig,
    Questions,
    Schedule,
)
from mres_jax.data.types import Rung
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.testing import said, tiny_qwen2_vl
from mres_jax.training.allocator.parts import Parts
from mres_jax.training.rl import CAPO, PPO, Concentration, Similarity

WIDTH = 8  # of the features


class MeanEyes:
    """Features are sums of pixels over blocks: a `FeatureExtractor` that costs nothing."""

    looked = 0

    def features(self, frames, question):
        """Returns `[t, 64, 8]` and `[q, 8]`."""
        self.looked += 1
        mix = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
        out = []
        for frame in frames:
            small = np.asarray(Image.fromarray(frame).resize((8, 8)), np.float32) / 255
            out.append(small.reshape(64, 3) @ mix)
        words = np.frombuffer(question.encode()[:16], np.uint8).astype(np.float32)
        return np.stack(out), np.tile(words[:, None] / 128, (1, WIDTH))


def write_rows(folder, *, count=6, frames=4, sizes=((16, 16),)):
    """Rows about clips of random frames; the frames of row `i` have size `i` of `sizes`."""
    draw, rows = np.random.default_rng(0), []
    for i in range(count):
        names = [f"{i}_{k}.png" for k in range(frames)]
        height, width = sizes[i % len(sizes)]
        for name in names:
            pixels = draw.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
            big = pixels.repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(big).save(folder / name)
        rows.append({"id": f"r{i}", "frames": names, "question": "what is red", "answer": "blue"})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def parts():
    # kernels of twice the usual size: at four times rounding alone moves a ratio by 2.4e-4
    tiny = tiny_qwen2_vl(spread=2.0)
    return Parts(tiny.model, tiny.spec, tiny.tokenizer, MeanEyes())


@pytest.fixture
def make_run(tmp_path):
    """A run with changes; `reward` may be the body of a function of (answer, row)."""
    (tmp_path / "data").mkdir()
    rows = write_rows(tmp_path / "data")

    def make(name="run", *, body=None, data=None, held_out=0, **changes):
        fields = {
            "name": "tiny",
            "network": AllocatorConfig(
                frame_size=WIDTH,
                question_size=WIDTH,
                hidden_size=16,
                num_layers=1,
                num_heads=2,
                num_temporal_heads=1,
                head_dim=8,
            ),
            "data": Questions(path=str(data or rows), held_out=held_out),
            "optimizer": OptimizerConfig(learning_rate=1e-2),
            "schedule": Schedule(num_steps=2, warmup_steps=0, kind="constant"),
            "checkpoint": CheckpointConfig(dir=str(tmp_path / name), every_steps=2),
            "capo": CAPO(),
            "ppo": PPO(),
            "similarity": Similarity(),
            "concentration": Concentration(),
            "eyes": "mean",
            "ladder": (Rung(max_patches=2048, max_tokens=1024, max_views=64, max_examples=8),),
            "prompts": 2,
            "allocations": 4,
            "max_new_tokens": 3,
            "strip_every": 2,
        }
        if body is not None:
            file = tmp_path / f"{name}_reward.py"
            lines = "".join(f"    {line}\n" for line in body.splitlines())
            file.write_text(f"def pay(answer, row):\n{lines}")
            fields["reward"] = f"{file}:pay"
        return AllocatorRun(**fields | changes)

    return make


class Reader:
    """An answerer that says how many visual tokens the first frame has, and compiles nothing."""

    def __init__(self, spec):
        self.spec, self.asked = spec, []

    def answer(self, requests, *, n=1, sampling=None, seed=0):
        """Deterministic in the request's name."""
        return [[self._answer(request, i) for i in range(n)] for request in requests]

    def _answer(self, request, sample):
        self.asked.append(request.id)
        tokens = [view.size.area // self.spec.stride**2 for view in request.views]
        answer = said(
            str(tokens[0]),
            views=request.views,
            logprobs=(-1.0, -2.0),
            visual_tokens=sum(tokens),
            retention_ratio=sum(tokens) / (4 * len(tokens)),
        )
        return dataclasses.replace(answer, token_ids=(65, 66))  # those of no control token


@pytest.fixture
def planted(parts):
    """Parts whose answers cost nothing."""
    return parts._replace(answerer=Reader(parts.spec), eyes=MeanEyes())


@pytest.fixture
def write_clips():
    """Writes rows about clips of random frames."""
    return write_rows
