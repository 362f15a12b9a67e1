"""Training of an allocator in seconds: frames of 16 px, one layer, eyes without weights."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mres_jax.config import (
    AllocatorRun,
    CheckpointConfig,
    OptimizerConfig,
    Questions,
    Schedule,
)
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Rung
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.testing.answers import said
from mres_jax.training.rl import CAPO, PPO, Concentration, Similarity

WIDTH = 8  # of the features


class MeanEyes:
    """Features are sums of pixels over blocks: a `FeatureExtractor` that costs nothing."""

    looked = 0

    def features(
        self, frames: Sequence[np.ndarray], question: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns `[t, 64, 8]` and `[q, 8]`."""
        self.looked += 1
        mix = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
        out = []
        for frame in frames:
            small = np.asarray(Image.fromarray(frame).resize((8, 8)), np.float32) / 255
            out.append(small.reshape(64, 3) @ mix)
        words = np.frombuffer(question.encode()[:16], np.uint8).astype(np.float32)
        return np.stack(out), np.tile(words[:, None] / 128, (1, WIDTH))


class FirstFrameReader:
    """An answerer that says how many visual tokens the first frame has, and compiles nothing."""

    def __init__(self, spec: ProcessorSpec):
        self.spec = spec

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request, all alike."""
        del sampling, seed
        return [[self._answer(request, i) for i in range(n)] for request in requests]

    def _answer(self, request: Request, sample: int) -> Answer:
        del sample
        tokens = [view.size.area // self.spec.stride**2 for view in request.views]
        answer = said(
            str(tokens[0]),
            views=request.views,
            logprobs=(-1.0, -2.0),
            visual_tokens=sum(tokens),
            retention_ratio=sum(tokens) / (4 * len(tokens)),
        )
        return dataclasses.replace(answer, token_ids=(65, 66))  # those of no control token


def write_questions(
    folder: pathlib.Path,
    *,
    count: int = 6,
    frames: int = 4,
    sizes: Sequence[tuple[int, int]] = ((16, 16),),
) -> pathlib.Path:
    """Writes rows about clips of random frames; those of row `i` have size `i` of `sizes`."""
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


def tiny_allocator_run(
    directory: str | os.PathLike[str],
    rows: str | os.PathLike[str],
    *,
    steps: int = 2,
    held_out: int = 0,
    **changes: Any,
) -> AllocatorRun:
    """A few steps about the questions of a file; `changes` are fields of the run."""
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
        "data": Questions(path=os.fspath(rows), held_out=held_out),
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "schedule": Schedule(num_steps=steps, warmup_steps=0, kind="constant"),
        "checkpoint": CheckpointConfig(dir=os.fspath(directory), every_steps=2),
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
    return AllocatorRun(**fields | changes)
