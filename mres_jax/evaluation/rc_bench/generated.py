"""Sets of generated documents: the same number of questions in every cell."""

import hashlib
import io
from collections.abc import Iterator

from PIL import Image

from mres_jax.data.documents import item_seed
from mres_jax.evaluation.rc_bench.cuts import CELLS, SMALL_UNIT, Cuts
from mres_jax.evaluation.rc_bench.items import Item

CUTS = Cuts.of_unit(SMALL_UNIT)  # those of `data.documents`, a third of the paper's per side


def generate_items(seed: int, per_cell: int, *, kind: str = "rc") -> Iterator[tuple[Item, bytes]]:
    """Yields questions about fresh documents with their pictures as PNG, cell after cell.

    Args:
      seed: of the documents; the same seed gives the same bytes.
      per_cell: questions in each of the 35 cells, one per document.
      kind: `rc` needs reading, `sc` does not.
    """
    from mres_jax.evaluation.trials import draw_questions  # brings jax

    for number, cell in enumerate(CELLS):
        drawn = draw_questions(item_seed(seed, number), per_cell, types=(kind,), bins=[cell])
        for document, question in drawn:
            buffer = io.BytesIO()
            Image.fromarray(document.image).save(buffer, format="png")
            item = Item(
                id=f"{'-'.join(cell)}-{question.id}",
                question=question.text,
                answers=(question.answer,),
                metric="exact",
                type=question.type,
                area_bin=cell[0],
                ratio_bin=cell[1],
                size=document.size,
                source=f"{document.kind} {document.seed}",
                fit=None,
                sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
            )
            yield item, buffer.getvalue()
