"""Answers of one device and of meshes of processors' devices, as JSON.

python answers_over_meshes.py tiny_qwen2_vl '{"data": 2, "fsdp": 2}' ...

One row for each: how many packs it answers at a time, how many it ran, of every answer its tokens
and their log-probabilities, and how many of the model's matrices decoding gathers. A listener ends
one of the answers early. All meshes take the same number of devices; the first row has none. A row
over `fsdp` has one more inside, of the same model with weights that were gathered before.
"""

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from over_meshes import LARGE, RUNGS, SMALL, set_up_devices

from mres_jax import nn, testing
from mres_jax.config import MeshConfig
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Rung
from mres_jax.inference import generate
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Request, Sampling
from mres_jax.training import meshes

SIZES = ((24, 40), (8, 48), (32, 32), (16, 16), (40, 24), (32, 24), (64, 64))  # px
ENDED = 3  # answers to this request end after the first look


def requests() -> list[Request]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    return [
        Request(id=f"r{i}", images=(image,), question="what is the total")
        for i, image in enumerate(images)
    ]


def rung_of(name: str, spec: ProcessorSpec) -> Rung:
    """Room for one prompt."""
    patches, tokens = RUNGS.get(name, (SMALL, LARGE))[1]
    shapes = () if spec.canvas is None else spec.canvas.shapes
    return Rung(
        max_patches=patches,
        max_tokens=tokens,
        max_views=24,
        max_examples=1,
        canvases=tuple((shape.height, shape.width) for shape in shapes),
    )


def gathered_matrices(text: str, sizes: set[int]) -> int:
    """All-gathers of a compiled program that come to as many numbers as one of the matrices."""
    shapes = re.findall(r"= [^=]*?\w+\[([\d,]+)\]\S* all-gather(?:-start)?\(", text)
    return sum(math.prod(map(int, shape.split(","))) in sizes for shape in shapes)


@contextlib.contextmanager
def watching_decode(model: Any, tensor: int) -> Iterator[list[int]]:
    """How many matrices each program of decoding gathers, of which a rank has a `tensor`-th."""
    found, arrange = [], generate.arrange
    layers = nnx.state(model.text)
    sizes = {math.prod(x.shape[-2:]) // tensor for x in jax.tree.leaves(layers) if x.ndim > 1}

    def watched(*args: Any, **kwargs: Any) -> Any:
        prefilling, decoding, run = arrange(*args, **kwargs)

        def seen(program: Any) -> Any:
            def decode(*args: Any, **kind: bool) -> Any:
                text = program.lower(*args, **kind).compile().as_text()
                found.append(gathered_matrices(text, sizes))
                return program(*args, **kind)

            return decode

        both = {"decode": seen(run.decode), "decode_rows": seen(run.decode_rows)}
        return prefilling, decoding, run._replace(**both)

    generate.arrange = watched
    try:
        yield found
    finally:
        generate.arrange = arrange


def answers(tiny: Any, model: Any, rung: Rung, tensor: int = 1) -> dict[str, Any]:
    """What the model answers where it lies."""
    answerer = LocalAnswerer(model, tiny.spec, tiny.tokenizer, ladder=[rung], rows=(4,))
    runs: list[int] = []
    together = Generator.generate_together

    def counted(self: Generator, asked: Any, **numbers: Any) -> Any:
        runs.append(len(asked))
        return together(self, asked, **numbers)

    Generator.generate_together = counted
    with watching_decode(model, tensor) as matrices:
        found = answerer.answer(
            requests(),
            n=3,
            sampling=Sampling(max_new_tokens=20, temperature=1.0, top_p=0.9),
            seed=5,
            listen=lambda request, sample, text: request == ENDED,
        )
    Generator.generate_together = together
    return {
        "at_once": answerer.generator.at_once,
        "runs": runs,
        "matrices": matrices,
        "tokens": [[one.token_ids for one in some] for some in found],
        "logprobs": [[one.logprobs for one in some] for some in found],
        "reasons": [[one.finish_reason for one in some] for some in found],
    }


def over(mesh: MeshConfig, tiny: Any, rung: Rung) -> dict[str, Any]:
    made = meshes.make_mesh(mesh)
    assert made is not None
    graphdef, state = nnx.split(tiny.model)
    state = jax.device_put(state, nn.state_shardings(state, made))
    with jax.set_mesh(made):
        model = nnx.merge(graphdef, state)
        row = answers(tiny, model, rung, mesh.tensor)
        if mesh.fsdp > 1:
            row["gathered"] = answers(tiny, nn.gather_once(model), rung, mesh.tensor)
        return row


def main(name: str, *sizes: str) -> None:
    configs: list[Mapping[str, int]] = [json.loads(size) for size in sizes]
    set_up_devices(MeshConfig(**configs[0]).size)
    tiny = getattr(testing, name)()
    rung = rung_of(name, tiny.spec)
    alone = answers(tiny, tiny.model, rung)
    print(json.dumps([alone, *(over(MeshConfig(**each), tiny, rung) for each in configs)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
