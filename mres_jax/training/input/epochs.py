"""Data sets mixed, shuffled and planned into the packs of one epoch."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mres_jax.data.assemble import blank_example
from mres_jax.data.balance import attention_pairs, balanced_order
from mres_jax.data.packing import pack, plan_packs
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import Example, ExampleSize, Kind, Pack, Rung
from mres_jax.errors import BadRowError, ConfigError, PackingError
from mres_jax.training.input.examples import Examples

Member = tuple[int, int]  # data set, number of the example in its epoch


class Fed(NamedTuple):
    """A pack with what is known of it.

    Attributes:
      pack: of the planned rung; examples that turned out bad have left padding.
      epoch, place: where it stands in the run.
      members: who was to be in it, bad ones included.
      bad: name and reason of those that could not be read.
      pairs: attention pairs, as planned.
      kind: as planned; what was read has its shapes.
    """

    pack: Pack
    epoch: int
    place: int
    members: tuple[Member, ...]
    bad: tuple[tuple[str, str], ...]
    pairs: int
    kind: Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """The packs of one epoch, by number: a random-access source for any reader.

    Attributes:
      sources: of the examples.
      number: of the epoch.
      kinds: of each pack.
      members: of each pack.
      sizes: what the members of each pack take of it, together.
      pairs: their attention pairs.
      label_names: of all packs.
      spec: of the model.
    """

    sources: tuple[Examples, ...]
    number: int
    kinds: tuple[Kind, ...]
    members: tuple[tuple[Member, ...], ...]
    sizes: tuple[ExampleSize, ...]
    pairs: tuple[int, ...]
    label_names: tuple[str, ...]
    spec: ProcessorSpec

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Static lengths of each pack."""
        return tuple(kind.rung for kind in self.kinds)

    def fingerprint(self) -> str:
        """Returns a text that is the same for two plans only if they are."""
        planned = (self.number, self.kinds, self.members, self.sizes, self.pairs)
        return hashlib.sha256(repr(planned).encode()).hexdigest()

    def blank(self, index: int) -> Fed:
        """The same pack without contents: what stands for one that another process reads."""
        return self._fed(index, [], ())

    def __getitem__(self, index: int) -> Fed:
        examples, bad = [], []
        for source, number in self.members[index]:
            try:
                examples.append(self.sources[source].example(self.number, number))
            except BadRowError as error:
                bad.append((self.sources[source].name(self.number, number), str(error)))
        return self._fed(index, examples, tuple(bad))

    def _fed(self, index: int, examples: list[Example], bad: tuple[tuple[str, str], ...]) -> Fed:
        """A pack in the shapes of its kind, whatever is in it."""
        kind = self.kinds[index]
        whole = pack(
            examples or [blank_example(self.spec)],
            kind.rung,
            label_names=self.label_names,
            frames=self.spec.temporal_patch_size if kind.has_clip else 1,
        )
        return Fed(whole, self.number, index, self.members[index], bad, self.pairs[index], kind)


def plan_epoch(
    sources: Sequence[Examples],
    ladder: Sequence[Rung],
    *,
    seed: int,
    epoch: int,
    label_names: Sequence[str] = (),
    spec: ProcessorSpec,
    fill: int = -1,
    balance: int = 0,
) -> Epoch:
    """Returns every example of every source exactly once, in an order drawn from (seed, epoch).

    Args:
      sources: the mixture.
      ladder: static lengths.
      seed, epoch: of the order.
      label_names: of `Example.patch_labels`, for all packs alike.
      spec: of the model.
      fill: see `plan_packs`.
      balance: the window of `balanced_order`.

    Raises:
      ConfigError: an example is larger than the top rung, by name; or there is none at all.
    """
    tables = [source.sizes(epoch) for source in sources]
    members = np.concatenate(
        [
            np.stack([np.full(len(table), i), np.arange(len(table))], axis=1)
            for i, table in enumerate(tables)
        ]
    )
    if not len(members):
        raise ConfigError("run: the data has no example that can be read.")
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(len(members))
    members, sizes = members[order], np.concatenate(tables)[order]
    # With one frame a view, rows of clips are rows of pictures.
    clips = np.concatenate([source.has_clip(epoch) for source in sources])[order]
    clips &= spec.temporal_patch_size > 1
    try:
        plans = plan_packs(sizes, ladder, fill=fill)
    except PackingError as error:
        if error.item is None:
            raise
        source, number = members[error.item]
        name = f"run: {sources[source].name(epoch, int(number))}"
        raise ConfigError(str(error).replace(f"pack: example {error.item}", name, 1)) from None
    each = attention_pairs(sizes)
    pairs = [int(each[list(plan.indices)].sum()) for plan in plans]
    kinds = [Kind(plan.rung, bool(clips[list(plan.indices)].any())) for plan in plans]
    ordered = balanced_order(kinds, pairs, balance)
    plans = [plans[place] for place in ordered]
    return Epoch(
        sources=tuple(sources),
        number=epoch,
        kinds=tuple(kinds[place] for place in ordered),
        members=tuple(
            tuple((int(s), int(n)) for s, n in members[list(plan.indices)]) for plan in plans
        ),
        sizes=tuple(ExampleSize(*sizes[list(p.indices)].sum(0).tolist()) for p in plans),
        pairs=tuple(pairs[place] for place in ordered),
        label_names=tuple(label_names),
        spec=spec,
    )
