"""The data of a run file, opened."""

import functools
from collections.abc import Callable, Sequence

from mres_jax.config import Documents, Run
from mres_jax.data.packing import check_ladder
from mres_jax.data.rows import open_rows
from mres_jax.data.rows.sources.fetched import FetchedRows
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.training.input.documents import PATCH_CLASSES, DocumentExamples
from mres_jax.training.input.epochs import Epoch, plan_epoch
from mres_jax.training.input.examples import Examples
from mres_jax.training.input.rows import Kept, RowExamples


def open_data(
    run: Run,
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    *,
    row_multiple: int = 1,
    log: Callable[[str], None] = lambda line: None,
) -> Callable[[int], Epoch]:
    """Returns the function that plans an epoch of the run's data.

    Args:
      run: its data, policies, ladder and seed.
      spec, tokenizer: of the model.
      row_multiple: what every length of a rung must be a multiple of.
      log: receives what is worth knowing about the data, such as rows that are left out.

    Raises:
      ConfigError: a policy that the model cannot take, a ladder that is none, unreadable data.
    """
    ladder = checked_ladder(run.ladder, row_multiple)
    sources = open_sources(run, spec, tokenizer, kept="train", seed=run.seed, log=log)
    return planner(run, sources, spec, ladder)


def open_sources(
    run: Run,
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    *,
    kept: Kept,
    seed: int | str,
    log: Callable[[str], None] = lambda line: None,
) -> list[DocumentExamples | RowExamples]:
    """Returns the data sets of a run; `kept` says which rows, `seed` what is drawn."""
    policies = {parse_policy(text): weight for text, weight in run.policies.items()}
    for policy in policies:
        check_policy(policy, spec)
    sources: list[DocumentExamples | RowExamples] = []
    for number, part in enumerate(run.data):
        drawing = {
            "policies": policies,
            "seed": f"{seed}/{number}",
            "label_mask": run.label_mask,
        }
        if isinstance(part, Documents):
            examples = DocumentExamples(
                part,
                **drawing,
                spec=spec,
                tokenizer=tokenizer,
                labelled=bool(run.aux_loss_weight),
            )
        else:
            rows = open_rows(
                part.path,
                images=part.images or None,
                spec=spec,
                tokenizer=tokenizer,
                template=part.template,
                on_bad=part.on_bad,
                fps=part.fps,
                max_frames=part.max_frames,
                log=log,
            )
            examples = RowExamples(part, rows, **drawing, kept=kept, log=log)
        sources.append(examples)
    return sources


def fetch_rows(epoch: Epoch) -> None:
    """Brings prepared rows that stand in a bucket onto this machine, where they do not yet.

    Packs would bring them too, but a worker has nowhere to say so, and waits for packs end.

    Raises:
      MresError: a shard is missing or damaged.
      RunError: the bucket cannot be reached, or the disk is full.
    """
    for source in epoch.sources:
        if isinstance(source, RowExamples) and isinstance(source.rows.source, FetchedRows):
            source.rows.source.fetch()


def planner(
    run: Run, sources: Sequence[Examples], spec: ProcessorSpec, ladder: Sequence[Rung]
) -> Callable[[int], Epoch]:
    """Returns the function that plans an epoch of the sources; the last two are remembered."""
    plan = functools.partial(
        plan_epoch,
        sources,
        ladder,
        seed=run.seed,
        fill=run.fill,
        balance=run.balance,
        label_names=sorted(PATCH_CLASSES) if run.aux_loss_weight else (),
        spec=spec,
    )
    return functools.lru_cache(maxsize=2)(lambda epoch: plan(epoch=epoch))


def checked_ladder(ladder: Sequence[Rung], multiple: int = 1) -> tuple[Rung, ...]:
    """Returns the rungs, smallest first; every length must be a multiple of `multiple`."""
    ladder = check_ladder(ladder)
    for rung in ladder:
        for name in ("max_patches", "max_tokens"):
            if getattr(rung, name) % multiple:
                raise ConfigError(
                    f"run: ladder: {name}={getattr(rung, name)} is not a multiple of {multiple}, "
                    "as attention over packs needs."
                )
    return ladder
