"""Losses of a few steps of a tiny model over meshes of processors' devices, as JSON.

python over_meshes.py tiny_qwen2_vl '{"fsdp": 2, "tensor": 2}' ...

The first row is that of a single device without a mesh.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from mres_jax import nn, ops, testing
from mres_jax.config import MeshConfig, OptimizerConfig, Schedule
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import pack
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Pack, Rung
from mres_jax.geometry import Size
from mres_jax.models.qwen2.model import Decoder
from mres_jax.resolution.policies import parse_policy
from mres_jax.training import meshes
from mres_jax.training.learner import Learner, Share, Step, init_state
from mres_jax.training.losses import next_token_sums
from mres_jax.training.optimizer import make_optimizer

ANSWERS = ("blue", "the invoice is red and the total is blue", "red", "the total is red")
SIZES = ((24, 40), (8, 48), (32, 32), (16, 16))  # px
SMALL, LARGE = (160, 256), (192, 288)  # patches and tokens of two rungs
RUNGS = {"tiny_smolvlm": ((768, 512), (832, 576))}  # of a model that makes more of a picture


TOKENIZER = testing.tiny_tokenizer()
NOTHING: Any = None
READER = testing.TinyModel(NOTHING, testing.tiny_spec(TOKENIZER), TOKENIZER)


def make_pack(tiny: testing.TinyModel, seed: int, lengths: tuple[int, int]) -> Pack:
    """Two conversations about a random picture each."""
    rng = np.random.default_rng(seed)
    examples = []
    for size in (SIZES[seed % 4], SIZES[(seed + 1) % 4]):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        views = parse_policy(tiny.spec.default_policy or "native")([Size(*size)], "", tiny.spec)
        messages = prompt_messages("what is the total", num_images=1, answer=ANSWERS[seed % 4])
        examples.append(
            assemble([image], views, messages, tiny.spec, tiny.tokenizer, label_mask="answer")
        )
    canvases = tuple(sorted({canvas.shape[:2] for e in examples for canvas in e.canvases}))
    patches, tokens = lengths
    rung = Rung(
        max_patches=patches,
        max_tokens=tokens,
        # Every view has a canvas, and gradients of their convolutions take longest here.
        max_views=len(examples) if canvases else 32,
        max_examples=2,
        canvases=canvases,
    )
    return pack(examples, rung)


class Reader(nnx.Module):
    """A decoder alone, of one layer: what compiles soonest."""

    def __init__(self, tiny_tokenizer: Tokenizer):
        config = dataclasses.replace(testing.tiny_text_config(tiny_tokenizer), num_hidden_layers=1)
        self.model = testing.fill(lambda: Decoder(config, rngs=nnx.Rngs(0)), scale=0.3)

    def loss(self, pack: Pack, share: Share):
        plan = ops.make_plan(pack.segment_ids, causal=True)
        hidden = self.model(self.model.embed(pack.tokens), pack.positions, plan)
        sums = next_token_sums(self.model.logits, hidden, pack.targets, pack.loss_mask, chunk=48)
        loss = share.token * sums.nll
        return loss, {"loss": loss, "objective": loss}


def make_learner(tiny: testing.TinyModel, name: str) -> Any:
    """What is trained."""
    if name == "reader":
        return Reader(tiny.tokenizer)
    return Learner(
        tiny.model, patch_classes={}, auxiliary_weight=0.0, loss_chunk=48, rngs=nnx.Rngs(0)
    )


def losses(name: str, tiny: testing.TinyModel, mesh: Mesh | None, steps: int) -> list[float]:
    """Of the first steps, each of two packs of one rung and two of another."""
    small, large = RUNGS.get(name, (SMALL, LARGE))
    lengths = (small, small) if name == "reader" else (small, large)
    schedule = Schedule(num_steps=9, warmup_steps=0, kind="constant")
    optimizer = make_optimizer(OptimizerConfig(learning_rate=3e-4), schedule)
    if name == "reader":
        optimizer = optax.sgd(0.1, momentum=0.9)
    graphdef, state = init_state(make_learner(tiny, name), optimizer)
    # A step takes over the memory of its state.
    state = jax.tree.map(lambda x: jax.device_put(np.array(x)), state)
    if mesh is not None:
        state = jax.device_put(state, nn.state_shardings(state, mesh))
        check_spread(state, mesh)
    step, found = Step(graphdef, optimizer, mesh=mesh), []
    for number in range(steps):
        packs = [make_pack(tiny, 4 * number + i, lengths[i // 2]) for i in range(4)]
        state, metrics = step(state, packs)
        found.append(float(metrics["loss"]))
    if mesh is not None:
        check_spread(state, mesh)
    return found


def check_spread(state, mesh: Mesh) -> None:
    """No device holds more of the state than its share of it, but for what nothing divides."""
    leaves = jax.tree.leaves((state.params, state.opt_state))
    held = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    shares = mesh.shape["fsdp"] * mesh.shape["tensor"]
    assert held < 2 * sum(x.nbytes for x in leaves) / shares, (held, mesh.shape)


def print_rows(losses: Callable[[Mesh | None], list[float]], sizes: Sequence[str]) -> None:
    """Of no mesh, then of meshes of these sizes."""
    rows = [losses(None)]
    for size in sizes:
        config = MeshConfig(**json.loads(size))
        mesh = meshes.mesh_of(config, jax.devices()[: config.size])
        with jax.set_mesh(mesh):
            rows.append(losses(mesh))
    print(json.dumps(rows))


def set_up_devices(count: int = 8) -> None:
    """So many, and programs that compile soon: half the time, for sums in another order."""
    jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_disable_most_optimizations", True)


def main(name: str, *sizes: str) -> None:
    set_up_devices()
    tiny = READER if name == "reader" else getattr(testing, name)()
    print_rows(lambda mesh: losses(name, tiny, mesh, 3), sizes)


if __name__ == "__main__":
    main(*sys.argv[1:])
