"""Runs trained allocators for `allocator,weights=DIR`: pixels and a question -> an allocation."""

import functools
import os
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import CheckpointError
from mres_jax.geometry import Extent, View
from mres_jax.inference.eyes import Eyes
from mres_jax.inference.generate import ONE_AT_A_TIME
from mres_jax.models.registry import load_model
from mres_jax.protocols import Item, extent_of, frames_of
from mres_jax.resolution.allocator.budget import Allocation
from mres_jax.resolution.allocator.features import ClipFeatures, pack_features
from mres_jax.resolution.allocator.flops import allocator_flops
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.resolution.allocator.store import load_allocator
from mres_jax.resolution.allocator.units import Unit, unit_scales, unit_views, units_of

FRAME_STEP, QUESTION_STEP = 8, 32  # clips and questions are padded to multiples: few compiles


class Look(NamedTuple):
    """What an allocator decided, and what deciding cost.

    Attributes:
      scales: per side, of each picture and each frame of a clip, before any budget.
      units: what has a size.
      allocation: sizes of them.
      flops: of eyes and network.
      ms: wall time of both.
    """

    scales: Float[np.ndarray, " t"]
    units: list[Unit]
    allocation: Allocation
    flops: float
    ms: float

    @property
    def views(self) -> list[View]:
        """What is looked at."""
        return unit_views(self.units, self.allocation)


class LoadedAllocator:
    """A network with its eyes."""

    def __init__(self, network: AllocatorNetwork, eyes: Eyes, *, name: str):
        config = network.config
        if (eyes.size, eyes.size) != (config.frame_size, config.question_size):
            raise CheckpointError(
                f"allocator {name}: reads features {config.frame_size} and {config.question_size} "
                f"wide, but {eyes.name} gives {eyes.size}."
            )
        self.network, self.eyes = network, eyes

    def scales(self, images: Sequence[np.ndarray], question: str) -> Float[np.ndarray, " t"]:
        """Returns the mean scale of each picture, in their order."""
        frames, asked = self.eyes.features(images, question)
        clips = pack_features(
            [(frames, asked)],
            max_frames=_up(len(frames), FRAME_STEP),
            max_question=_up(len(asked), QUESTION_STEP),
        )
        return mean_scales(self.network, clips)[: len(frames)]

    def most(
        self, policy: AllocatorPolicy, extents: Sequence[Extent], spec: ProcessorSpec
    ) -> list[View]:
        """Returns views as large as the policy can make them; nothing is looked at."""
        units = units_of(extents, spec)
        largest = self.network.config.max_scale
        return unit_views(
            units, policy.most([unit.extent for unit in units], spec, max_scale=largest)
        )

    def look(
        self,
        policy: AllocatorPolicy,
        items: Sequence[Item],
        question: str,
        spec: ProcessorSpec,
    ) -> Look:
        """Returns the allocation of one request's pictures and clips."""
        start, images = time.perf_counter(), frames_of(items)
        scales = self.scales(images, question)
        ms = 1e3 * (time.perf_counter() - start)
        units, config = units_of([extent_of(item) for item in items], spec), self.network.config
        allocation = policy.allocation(
            unit_scales(scales, units).tolist(),
            [unit.extent for unit in units],
            spec,
            max_scale=config.max_scale,
        )
        length = len(self.eyes.tokenizer.encode_text(question))
        network = allocator_flops(config, num_frames=len(images), question_tokens=length)
        return Look(scales, units, allocation, self.eyes.flops(len(images), question) + network, ms)


class Allocators:
    """Allocators by directory, each loaded once."""

    def __init__(self):
        self._loaded: dict[str, LoadedAllocator] = {}

    def open(self, weights: str | os.PathLike[str]) -> LoadedAllocator:
        """Returns an allocator, loaded at the first call.

        Raises:
          CheckpointError: no allocator there, or no model of the name of its eyes.
        """
        key = str(pathlib.Path(weights).expanduser().absolute())
        if key not in self._loaded:
            stored = load_allocator(key)
            eyes = open_eyes(stored.features)
            self._loaded[key] = LoadedAllocator(stored.network, eyes, name=str(weights))
        return self._loaded[key]


def mean_scales(network: AllocatorNetwork, clips: ClipFeatures) -> Float[np.ndarray, " n"]:
    """Returns the scale per side that each packed frame gets outside training, on the host."""
    with ONE_AT_A_TIME:
        return np.asarray(_mean_scales(*nnx.split(network), clips), np.float64)


@functools.cache
def open_eyes(name: str) -> Eyes:
    """Loads the frozen model that an allocator sees through.

    Raises:
      CheckpointError: no model of that name.
    """
    loaded = load_model(name)
    return Eyes(name, loaded.model, loaded.spec, loaded.tokenizer)


@functools.partial(jax.jit, static_argnums=0)
def _mean_scales(graphdef, state, clips: ClipFeatures) -> Float[Array, " n"]:
    return nnx.merge(graphdef, state).mean_scales(clips)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
