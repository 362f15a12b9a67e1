"""What is trained, and one step of it.

Axes: p packed patches, t packed positions, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from mres_jax.data.types import Pack
from mres_jax.models.vlm import PackedVLM
from mres_jax.nn import gather, on_ranks, state_shardings
from mres_jax.training import meshes
from mres_jax.training.losses import PatchHeads, next_token_sums

Metrics = dict[str, Float[Array, ""] | Int[Array, ""]]
Average = Literal["token", "pack"]


@runtime_checkable
class Batch(Protocol):
    """What a learner takes at a time: a `Pack`, or whatever its own `loss` reads."""

    @property
    def loss_mask(self) -> Any:
        """True where something is to be learnt."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deferred:
    """A pack that is made when its turn comes, and dropped behind it: a `Batch`.

    Attributes:
      loss_mask: of the pack.
      kind: packs of one kind have arrays of one shape.
      make: returns the pack.
    """

    loss_mask: Bool[np.ndarray, " t"]
    kind: Any
    make: Callable[[], Batch]


class Share(NamedTuple):
    """What one pack counts for in the loss of its step.

    Attributes:
      token: factor of the sum over its loss tokens.
      pack: factor of a mean over the pack.
    """

    token: Any
    pack: Any


def shares(packs: Sequence[Batch], average: Average = "token") -> list[Share]:
    """Returns the shares that make the sum over the packs of a step its average.

    Args:
      packs: of one step.
      average: `token` weighs every loss token of the step the same; `pack` every pack, as released
        trainers do, which take the mean over a micro-batch and then over micro-batches.
    """
    counts = [np.sum(pack.loss_mask) for pack in packs]
    totals = _totals(counts, len(packs), average)
    return [Share(np.float32(1 / max(n, 1)), np.float32(1 / len(packs))) for n in totals]


def shares_of_groups(
    groups: Sequence[tuple[Bool[Array, "r ..."], Bool[Array, " r"]]], count: int, average: Average
) -> list[Share]:
    """The same for packs that are spread over ranks, whose tokens no process can count alone.

    Args:
      groups: loss masks of packs on a leading axis, and which of the packs are real.
      count: of the real packs of the step.
      average: as above.
    """
    counts = [jnp.sum(mask, axis=range(1, mask.ndim)) for mask, _ in groups]
    return [
        Share(
            jnp.broadcast_to(1 / jnp.maximum(total, 1).astype(jnp.float32), real.shape),
            real.astype(jnp.float32) / count,
        )
        for total, (_, real) in zip(_totals(counts, count, average), groups, strict=True)
    ]


def _totals(counts: Sequence[Any], num_packs: int, average: Average) -> list[Any]:
    """What sums over loss tokens are divided by, from the counts of packs or of groups of packs."""
    if average == "token":
        return [sum(count.sum() for count in counts)] * len(counts)
    return [count * num_packs for count in counts]


class Learner(nnx.Module):
    """A model, and the heads of its auxiliary losses if it has any."""

    def __init__(
        self,
        model: PackedVLM,
        *,
        patch_classes: Mapping[str, int],
        auxiliary_weight: float,
        loss_chunk: int | None = None,
        rngs: nnx.Rngs,
    ):
        self.model = model
        self.auxiliary_weight = auxiliary_weight
        self.loss_chunk = loss_chunk
        config = model.config
        vision, width = config.vision_config, config.text_config.hidden_size
        merged = vision.spatial_merge_size**2
        heads = {
            "patch": PatchHeads(vision.width, patch_classes, rngs=rngs),
            "token": PatchHeads(width, patch_classes, patches=merged, rngs=rngs),
        }
        self.heads = nnx.Dict(heads if patch_classes else {})

    def loss(self, pack: Pack, share: Share) -> tuple[Float[Array, ""], Metrics]:
        """What the pack adds to the loss of its step, and to each metric.

        The next-token loss is a sum over tokens, scaled by `share.token`; the weighted auxiliary
        loss on patches and the accuracies of its heads are means, scaled by `share.pack`.
        """
        model, visual, seen = self.model, None, {}
        if pack.patches.shape[0]:  # else a rung for text alone
            features = model.vision.features(pack)
            visual = model.project(model.vision.merge(features))
            seen = {"patch": features.last, "token": visual.tokens} if self.heads else {}
        hidden = model.hidden(pack, visual)
        sums = next_token_sums(
            model.logits, hidden, pack.targets, pack.loss_mask, chunk=self.loss_chunk
        )
        loss = share.token * sums.nll
        metrics = {"loss": loss, "accuracy": share.token * sums.right}
        for level, features in seen.items():
            auxiliary, accuracy = self.heads[level](features, pack.patch_labels)
            loss = loss + share.pack * self.auxiliary_weight * auxiliary
            metrics |= {f"{level}_{name}": share.pack * x for name, x in accuracy.items()}
        return loss, metrics | {"objective": loss}


class TrainState(NamedTuple):
    """Everything that a restart needs; a pytree.

    Attributes:
      step: steps so far, skipped ones included.
      params: `nnx.State` of a `Learner`: what is trained.
      frozen: the rest of it: no gradient, no optimiser state.
      opt_state: float32, whatever the parameters are held in.
      skipped: steps that changed nothing, since objective or gradient were not finite.
      skipped_in_row: of them, those after the last one that did.
    """

    step: Int[Array, ""]
    params: Any
    frozen: Any
    opt_state: Any
    skipped: Int[Array, ""]
    skipped_in_row: Int[Array, ""]


def init_state(
    learner: nnx.Module,
    optimizer: optax.GradientTransformation,
    *,
    is_trained: Callable[[tuple, Any], bool] = lambda path, variable: True,
    param_dtype: DTypeLike | None = None,
    frozen_dtype: DTypeLike | None = None,
) -> tuple[nnx.GraphDef, TrainState]:
    """Splits a learner into its static part and the state that steps carry.

    Args:
      learner: a `Learner`, or another module with its `loss`; the state shares its arrays.
      optimizer: sees the trained parameters only.
      is_trained: of the path and variable of a parameter.
      param_dtype: what the model's trained parameters are held in; None leaves them as they are.
      frozen_dtype: what the others are held in; None leaves them as they are.
    """
    graphdef, params, frozen = nnx.split(learner, is_trained, ...)
    if param_dtype is not None:  # not the auxiliary heads, which compute in float32
        flat = nnx.to_flat_state(params)
        cast = [(path, _cast(x, param_dtype) if path[0] == "model" else x) for path, x in flat]
        params = nnx.from_flat_state(cast)
    if frozen_dtype is not None:
        frozen = _cast(frozen, frozen_dtype)
    return graphdef, TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        frozen=frozen,
        opt_state=optimizer.init(_wide(params)),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )


class Step:
    """An optimiser step over one or more packs, which may be of different rungs.

    It compiles once per rung, and once more where packs of it have clips, and takes over the old
    state's memory. Gradients of several packs are added up in float32. A step whose objective or
    gradient norm is not finite changes nothing but the counters of its state.

    Example:
      `state, metrics = Step(graphdef, optimizer)(state, packs)`
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        optimizer: optax.GradientTransformation,
        *,
        average: Average = "token",
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Compiles nothing yet.

        Args:
          graphdef: static part of a learner: of a module with its `loss`.
          optimizer: as given to `init_state`.
          average: see `shares`.
          mesh: of a run over many devices, where the state lies by `nn.state_shardings`; to be
            called inside `jax.set_mesh` of it.
        """
        self.graphdef, self.optimizer, self.mesh = graphdef, optimizer, mesh
        self.average: Average = average
        self._whole = jax.jit(self._run_whole, donate_argnums=0)
        self._zeros = jax.jit(
            lambda params: self._placed(jax.tree.map(jnp.zeros_like, _wide(params)))
        )
        self._weigh = jax.jit(
            functools.partial(shares_of_groups, average=average), static_argnames="count"
        )
        self._add = jax.jit(self._run_add, donate_argnums=0)
        self._finish = jax.jit(self._run_finish, donate_argnums=0)

    def __call__(
        self,
        state: TrainState,
        packs: Batch | Sequence[Batch],
        kinds: Sequence[Any] | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Returns the state after the step, and its metrics; `state` must not be used again.

        Over a mesh packs of one of `kinds` are computed together, see `meshes.grouped`. A group is
        on the devices while it is computed; meanwhile the next one is made, where it is `Deferred`.
        """
        packs = [packs] if isinstance(packs, Batch) else packs
        groups, parts = self._shared_out(packs, kinds)
        if len(groups) == 1:
            return self._whole(state, self._on_devices(_made(groups[0])), parts[0])
        total, metrics = self._zeros(state.params), []
        for group, share in zip(groups, parts, strict=True):
            made = _made(group)
            jax.block_until_ready(metrics)  # until the one before is computed
            pack = self._on_devices(made)
            total, added = self._add(total, state.params, state.frozen, pack, share)
            metrics.append(added)
            del made, pack  # before the next one is made
        return self._finish(state, total, metrics)

    def _shared_out(
        self, packs: Sequence[Batch], kinds: Sequence[Any] | None
    ) -> tuple[list[list[Batch]], list[Share]]:
        """Packs that are computed at a time, and what they count for."""
        if self.mesh is None:
            return [[pack] for pack in packs], shares(packs, self.average)
        groups = meshes.grouped(packs, self.mesh, kinds or [_kind_of(pack) for pack in packs])
        masks = [
            (
                on_ranks([np.asarray(pack.loss_mask) for pack in group], self.mesh),
                on_ranks([np.bool_(True)] * len(group), self.mesh),
            )
            for group in groups
        ]
        return groups, self._weigh(masks, count=len(packs))

    def _on_devices(self, packs: Sequence[Batch]) -> Batch:
        """One pack for each rank of the mesh; without one the pack alone, which `jit` places."""
        return packs[0] if self.mesh is None else on_ranks(packs, self.mesh)

    def lower(
        self, state: TrainState, pack: Batch, share: Share, *, is_whole: bool = True
    ) -> jax.stages.Lowered:
        """Returns a step of one pack for compilers, or the part of a step that adds a pack to it.

        Shapes will do in place of arrays.
        """
        if is_whole:
            return self._whole.lower(state, pack, share)
        total = jax.eval_shape(self._zeros, state.params)
        return self._add.lower(total, state.params, state.frozen, pack, share)

    def gradients(self, params: Any, frozen: Any, pack: Batch, share: Share) -> tuple[Any, Metrics]:
        """What one pack adds to the gradient of the step, float32 by name, and to its metrics.

        Over a mesh, one pack for each of its ranks.
        """

        def loss(params: Any) -> tuple[Float[Array, ""], Metrics]:
            learner = nnx.merge(self.graphdef, params, frozen)
            if self.mesh is None:
                return learner.loss(pack, share)
            return meshes.over_packs(gather(learner).loss)(pack, share)

        gradient, metrics = jax.grad(loss, has_aux=True)(params)
        return self._placed(_wide(gradient)), metrics

    def update(
        self, state: TrainState, gradient: Any, metrics: Metrics
    ) -> tuple[TrainState, Metrics]:
        """Applies the gradient of a whole step, if it is finite."""
        norm = optax.tree.norm(gradient)
        ok = jnp.isfinite(metrics["objective"]) & jnp.isfinite(norm)
        old: Any = nnx.to_pure_dict(state.params)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            updates, opt_state = self.optimizer.update(
                gradient, state.opt_state, _wide(state.params)
            )
            new = optax.apply_updates(old, updates)
        nnx.replace_by_pure_dict(state.params, self._placed(_where(ok, new, old)))
        bad = 1 - ok.astype(jnp.int32)
        state = state._replace(
            step=state.step + 1,
            opt_state=self._placed(_where(ok, opt_state, state.opt_state)),
            skipped=state.skipped + bad,
            skipped_in_row=bad * (state.skipped_in_row + 1),
        )
        return state, metrics | {"grad_norm": norm, "skipped_in_row": state.skipped_in_row}

    def _placed(self, tree: Any) -> Any:
        """A tree of parameters by name, where its leaves lie."""
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, state_shardings(tree, self.mesh))

    def _run_whole(
        self, state: TrainState, pack: Batch, share: Share
    ) -> tuple[TrainState, Metrics]:
        return self.update(state, *self.gradients(state.params, state.frozen, pack, share))

    def _run_add(
        self, total: Any, params: Any, frozen: Any, pack: Batch, share: Share
    ) -> tuple[Any, Metrics]:
        gradient, metrics = self.gradients(params, frozen, pack, share)
        return jax.tree.map(jnp.add, total, gradient), metrics

    def _run_finish(
        self, state: TrainState, total: Any, parts: list[Metrics]
    ) -> tuple[TrainState, Metrics]:
        names = dict.fromkeys(name for part in parts for name in part)
        sums: Any = {name: sum(part[name] for part in parts if name in part) for name in names}
        return self.update(state, total, sums)


def _made(packs: Sequence[Batch]) -> list[Batch]:
    return [pack.make() if isinstance(pack, Deferred) else pack for pack in packs]


def _kind_of(pack: Batch) -> Any:
    """What packs must have in common to be computed together: their shapes."""
    return pack.kind if isinstance(pack, Deferred) else str(jax.tree.map(np.shape, pack))


def _cast(state: Any, dtype: DTypeLike) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), state)


def _wide(state: Any) -> Any:
    """Arrays of an `nnx.State` by name, float32."""
    return _cast(nnx.to_pure_dict(state), jnp.float32)


def _where(ok: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)
