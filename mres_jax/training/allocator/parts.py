"""What a run works with: the backbone, the eyes, and the two that may learn."""

import dataclasses
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from mres_jax.config import AllocatorRun, Schedule, is_server
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER_FILE, Tokenizer
from mres_jax.errors import ConfigError
from mres_jax.inference.allocators import open_eyes
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.eyes import Eyes
from mres_jax.models.registry import ADAPTERS, GENERATION, family_of, load_model, resolve
from mres_jax.nn import state_shardings
from mres_jax.protocols import FeatureExtractor, Sampling
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.training import meshes
from mres_jax.training.allocator.backbone import BackboneLearner
from mres_jax.training.allocator.learner import AllocatorLearner
from mres_jax.training.allocator.prompts import limit_pixels
from mres_jax.training.allocator.served import Link, load_served, open_served
from mres_jax.training.learner import Step, TrainState, init_state
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.parts import adapt, trained_rates
from mres_jax.training.setup import in_steps
from mres_jax.training.trees import bind, fill_state, split_trees


class Parts(NamedTuple):
    """Models of a run.

    Attributes:
      model: the backbone, a `PackedVLM`; None behind a server.
      spec: of it.
      tokenizer: of it.
      eyes: what the allocator sees through.
      answerer: who answers in place of the model; it has its `spec`, and cannot learn.
    """

    model: Any
    spec: ProcessorSpec
    tokenizer: Tokenizer
    eyes: FeatureExtractor
    answerer: Any = None


def open_parts(run: AllocatorRun, mesh: Mesh | None = None, link: Link | None = None) -> Parts:
    """Loads backbone and eyes; over a mesh the backbone lies there by the rules of training.

    Of a backbone behind a server the processor alone is loaded, and nothing is sent yet.

    Raises:
      CheckpointError: no such model, or a damaged one.
    """
    if is_server(run.backbone):
        found = load_served(run)
        spec = limit_pixels(found.spec, run.data.max_pixels)
        answerer = open_served(run, spec, found.tokenizer, link)
        return Parts(None, spec, found.tokenizer, open_eyes(run.eyes), answerer)
    trained = run.backbone_training is not None
    param_dtype = jnp.float32 if trained else None
    loaded = load_model(
        resolve(run.backbone),
        dtype=jnp.dtype(run.dtype),
        param_dtype=param_dtype,
        sharding=None if mesh is None else meshes.rule(mesh),
    )
    spec = limit_pixels(loaded.spec, run.data.max_pixels)
    return Parts(loaded.model, spec, loaded.tokenizer, open_eyes(run.eyes))


def lend_parts(run: AllocatorRun, parts: Parts, mesh: Mesh | None = None) -> Parts:
    """Returns parts whose model a run may train or move: with arrays of its own if it will."""
    parts = parts._replace(spec=limit_pixels(parts.spec, run.data.max_pixels))
    is_touched = run.backbone_training is not None or mesh is not None
    if parts.answerer is not None or not is_touched:
        return parts
    graphdef, state = nnx.split(parts.model)
    state = jax.tree.map(jnp.copy, state)
    if mesh is not None:
        state = jax.device_put(state, state_shardings(state, mesh))
    return parts._replace(model=nnx.merge(graphdef, state))


def check_parts(run: AllocatorRun, parts: Parts) -> None:
    """Refuses parts that do not fit each other or the run.

    Raises:
      ConfigError: which, and what to do.
    """
    network, eyes = run.network, parts.eyes
    if parts.answerer is None:
        meshes.check_model(run.mesh, parts.model.config, run.rungs)
    if parts.answerer is not None and run.backbone_training is not None:
        raise ConfigError(
            "run: backbone_training, but another answers than the model: leave it out."
        )
    sizes = (network.frame_size, network.question_size)
    if isinstance(eyes, Eyes) and sizes != (eyes.size, eyes.size):
        raise ConfigError(
            f"run: network reads features {sizes[0]} and {sizes[1]} wide, but {eyes.name} gives "
            f"{eyes.size}. Set network.frame_size and network.question_size."
        )
    if run.wire == "pairs":
        if parts.spec.video is None:
            raise ConfigError("run: wire=pairs, but the backbone takes no clips; use wire=stills.")
        if network.unit == "frame":
            raise ConfigError(
                "run: wire=pairs, but network.unit=frame: the backbone sees frames in groups of "
                f"{parts.spec.temporal_patch_size}, which have one size. Use unit=pair, or "
                "wire=stills."
            )


def sampling_of(run: AllocatorRun) -> Sampling:
    """Returns how rollouts are drawn.

    Raises:
      ConfigError: numbers that cannot be.
    """
    try:
        return Sampling(
            temperature=run.temperature,
            top_p=run.top_p,
            top_k=run.top_k,
            max_new_tokens=run.max_new_tokens,
        )
    except ValueError as error:
        raise ConfigError(f"run: {error}") from None


@dataclasses.dataclass(kw_only=True)
class Learning:
    """One that learns: its static part, its state, its step."""

    graphdef: nnx.GraphDef
    state: TrainState
    step: Step

    @property
    def split(self) -> tuple[Any, Any, Any]:
        """As `nnx.split` would give it."""
        return self.graphdef, self.state.params, self.state.frozen

    @property
    def module(self) -> Any:
        """The learner as it is; taking a step invalidates its arrays."""
        return nnx.merge(*self.split)

    def update(self, batches: Any) -> dict[str, float]:
        """Takes a step and returns its metrics, on the host."""
        self.state, metrics = self.step(self.state, batches)
        return {name: float(value) for name, value in jax.device_get(metrics).items()}


def schedule_of(run: AllocatorRun, *, every: int = 1) -> Schedule:
    """Returns the schedule of a run in updates of one that learns, where the run counts steps.

    Args:
      run: the settings; each of its steps has `run.updates`.
      every: steps of the run to one in which it learns.
    """
    assert run.schedule.num_steps is not None
    schedule = in_steps(run.schedule, run.schedule.num_steps)
    last, warmup = (
        (steps or 0) // every * run.updates for steps in (schedule.num_steps, schedule.warmup_steps)
    )
    return dataclasses.replace(schedule, num_steps=max(last, 1), warmup_steps=warmup)


def set_up_allocator(run: AllocatorRun, mesh: Mesh | None = None) -> Learning:
    """Returns the allocator with random weights, where its arrays lie on a mesh."""
    learner = AllocatorLearner(
        AllocatorNetwork(run.network, rngs=nnx.Rngs(run.seed)),
        ppo=run.ppo,
        similarity=run.similarity,
        concentration=run.concentration,
    )
    optimizer = make_optimizer(run.optimizer, schedule_of(run))
    return _learning(*init_state(learner, optimizer), optimizer, mesh)


def set_up_backbone(run: AllocatorRun, parts: Parts, mesh: Mesh | None = None) -> Learning | None:
    """Returns the backbone as a learner, or None where it is frozen.

    Raises:
      ConfigError: `train` or `peft` fit nothing.
    """
    settings = run.backbone_training
    if settings is None:
        return None
    model: Any = parts.model
    if settings.remat != "none":
        model = _with_remat(model, settings.remat)
    learner = BackboneLearner(
        model,
        ppo=run.ppo,
        sampling=sampling_of(run),
        reserved_token_ids=parts.spec.reserved_token_ids,
        loss_chunk=settings.loss_chunk,
    )
    if settings.peft is not None:
        adapt(learner.model, settings.peft, rngs=nnx.Rngs(run.seed))
    rates = trained_rates(learner, settings.train)
    optimizer = make_optimizer(settings.optimizer, schedule_of(run, every=settings.every), rates)
    graphdef, state = init_state(
        learner, optimizer, is_trained=lambda path, _: tuple(map(str, path)) in rates
    )
    return _learning(graphdef, state, optimizer, mesh)


def _learning(
    graphdef: nnx.GraphDef,
    state: TrainState,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | None,
) -> Learning:
    if mesh is not None:
        state = jax.device_put(state, state_shardings(state, mesh))
    return Learning(graphdef=graphdef, state=state, step=Step(graphdef, optimizer, mesh=mesh))


def make_answerer(run: AllocatorRun, parts: Parts) -> Any:
    """Returns the sampler of rollouts: an `Answerer` with its `spec`."""
    return parts.answerer or LocalAnswerer(
        parts.model, parts.spec, parts.tokenizer, policy="native", ladder=run.ladder or None
    )


def trees_of(allocator: Learning, backbone: Learning | None) -> dict[str, Any]:
    """Returns all that a restart needs, by name; `model` is the backbone where it learns."""
    state = allocator.state
    rest = {name: value for name, value in state._asdict().items() if name != "params"}
    trees = {"allocator": state.params, "allocator_training": rest}
    del rest["frozen"]  # an allocator has nothing frozen
    return trees | (split_trees(backbone.state) if backbone is not None else {})


def fill(allocator: Learning, backbone: Learning | None, trees: dict[str, Any]) -> None:
    """Puts trees that were read back in their places."""
    rest = trees["allocator_training"]
    allocator.state = bind(allocator.state._replace(params=trees["allocator"], **rest))
    if backbone is not None:
        own = {k: v for k, v in trees.items() if not k.startswith("allocator")}
        state = fill_state(backbone.state, own)
        backbone.state = bind(state._replace(**own["training"], **own["skipped"]))


def model_facts(run: AllocatorRun, parts: Parts) -> dict[str, Any]:
    """Returns what makes a checkpoint one of a model that can be asked: of a trained backbone."""
    if run.backbone_training is None:
        return {"config": {}}
    config, spec = parts.model.config, parts.spec
    ends = {"eos_token_id": list(spec.eos_token_ids), "pad_token_id": spec.pad_token_id}
    extra: dict[str, Any] = {}
    if run.backbone_training.peft is not None:
        extra[ADAPTERS] = {"scale": run.backbone_training.peft.scale}
    return {
        "config": family_of(config).config_to_hf(config),
        "assets": {
            TOKENIZER_FILE: parts.tokenizer.to_bytes(),
            GENERATION: json.dumps(ends).encode(),
        },
        "extra": extra,
    }


def _with_remat(model: Any, remat: Any) -> Any:
    make: Any = family_of(model.config).Model
    dtype = model.text.embed.dtype
    skeleton = nnx.eval_shape(
        lambda: make(model.config, dtype=dtype, remat=remat, rngs=nnx.Rngs(0))
    )
    nnx.update(skeleton, nnx.state(model))
    return skeleton
