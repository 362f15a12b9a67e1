"""Packs of generated documents for training: a pure function of (seed, step), so any step can be
drawn again and a restart needs nothing but its number."""

import random
from collections.abc import Mapping, Sequence

import numpy as np

from mres_jax.config import DataConfig
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import Message
from mres_jax.data.documents import (
    KEYS,
    LABEL_CHARSET,
    SC_ANSWERS,
    Document,
    Question,
    make_document,
    patch_labels,
    scene_labels,
)
from mres_jax.data.documents.labels import MAX_INDEX
from mres_jax.data.documents.pages import KIND as PAGE, make_page
from mres_jax.data.packing import pack
from mres_jax.data.patches import block_positions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.geometry import View
from mres_jax.resolution.policies import parse_policy

COLUMNS = 2  # label cells per patch: two narrow characters can share one
PATCH_CLASSES = {
    f"{name}{column}": size
    for column in range(COLUMNS)
    for name, size in {
        "char": 1 + len(LABEL_CHARSET),
        "key": 1 + len(KEYS),
        "field": 1 + len(KEYS),
        "index": 2 + MAX_INDEX,
    }.items()
} | {topic: 1 + len(answers) for topic, answers in SC_ANSWERS.items()}
NATIVE = parse_policy("native")
MAX_MISFITS = 3  # draws in a row that no longer fit, after which a pack is closed


class DocumentStream:
    """Draws conversations about documents until a pack is full.

    The first draw chooses the rung: the smallest that holds it. A draw that does not fit what is
    left of the pack is put aside; since every draw is made from (seed, step, number), nothing is
    lost that another step would have seen.
    """

    def __init__(
        self,
        data: DataConfig,
        *,
        policies: Mapping[str, float],
        ladder: Sequence[Rung],
        spec: ProcessorSpec,
        tokenizer: Tokenizer,
        seed: int,
    ):
        self.data, self.spec, self.tokenizer, self.seed = data, spec, tokenizer, seed
        self.ladder = tuple(ladder)
        self.policies = {parse_policy(text): weight for text, weight in policies.items()}

    def pack(self, step: int) -> Pack:
        """The pack of one step."""
        examples: list[Example] = []
        rung, misfits, number = self.ladder[-1], 0, 0
        while misfits < MAX_MISFITS:
            example = self.example(random.Random(f"{self.seed}/{step}/{number}"))
            number += 1
            if not examples:
                rung = next((r for r in self.ladder if _fits([example], r)), rung)
            if _fits([*examples, example], rung):
                examples.append(example)
                misfits = 0
            else:
                misfits += 1
        return pack(examples, rung)

    def example(self, rng: random.Random) -> Example:
        """One conversation: pictures, then a few questions with their answers."""
        count = int(_draw(rng, self.data.images_per_prompt))
        documents = [self._document(rng, small=count > 1) for _ in range(count)]
        sizes = [d.size for d in documents]
        views = _draw(rng, self.policies)(sizes, "", self.spec)
        questions = self._questions(documents, views)
        if not questions:
            views = NATIVE(sizes, "", self.spec)
            questions = self._questions(documents, views)
        messages = []
        for i, (question, answer) in enumerate(self._turns(rng, questions)):
            pictures = tuple(range(count)) if not i else ()
            messages.append(Message(role="user", parts=(*pictures, question)))
            messages.append(Message(role="assistant", parts=(answer,)))
        return assemble(
            [d.image for d in documents],
            views,
            messages,
            self.spec,
            self.tokenizer,
            label_mask="answer",
            patch_labels=self._labels(documents, views),
        )

    def _document(self, rng: random.Random, *, small: bool) -> Document:
        kind, seed = _draw(rng, self.data.kinds), rng.getrandbits(48)
        most = self.data.pairs_per_page
        if kind == PAGE:
            return make_page(seed, max_pairs=min(3, most) if small else most)
        bins = {b: w for b, w in self.data.area_bins.items() if not small or b in "BC"}
        return make_document(seed, area_bin=_draw(rng, bins or {"B": 1.0}), kind=kind)

    def _questions(self, documents: Sequence[Document], views: Sequence[View]) -> list[Question]:
        """What can be asked: legible in its view, and with several pictures true of one only."""
        asked = []
        for view in views:
            height, width = view.crop.size
            scale = min(view.size.height / height, view.size.width / width)
            asked += [
                q
                for q in documents[view.item].questions
                if q.type in self.data.questions
                and (q.type == "sc" or scale * q.text_height >= self.data.min_text_height)
            ]
        if len(documents) > 1:
            keys = [f.key for d in documents for f in d.fields]
            once = {key for key in keys if key and keys.count(key) == 1}
            asked = [q for q in asked if q.type == "rc" and q.tags[0] in once]
        return asked

    def _turns(self, rng: random.Random, questions: Sequence[Question]) -> list[tuple[str, str]]:
        """Some of the questions, no topic twice, with their answers."""
        asked, weights = list(questions), self.data.questions
        rng.shuffle(asked)
        chosen = []
        while asked and len(chosen) < self.data.questions_per_image:
            kinds = {q.type: weights[q.type] for q in asked}
            kind = _draw(rng, kinds) if sum(kinds.values()) else asked[0].type
            question = next(q for q in asked if q.type == kind)
            asked = [q for q in asked if q.tags[0] != question.tags[0]]
            chosen.append((question.text, question.answer))
        return chosen or [("What is the total?", "none")]

    def _labels(
        self, documents: Sequence[Document], views: Sequence[View]
    ) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {name: [] for name in PATCH_CLASSES}
        for view in views:
            document, size = documents[view.item], self.spec.patch_size
            named = patch_labels(document, view, patch_size=size, columns=COLUMNS)
            rows, columns = block_positions(
                view.grid(self.spec.patch_size), merge_size=self.spec.merge_size
            ).T
            for name, values in named.items():
                for column in range(COLUMNS):
                    cells = values[rows, columns * COLUMNS + column]
                    parts[f"{name}{column}"].append(cells)
            for topic, values in scene_labels(document, view, patch_size=size).items():
                parts[topic].append(values[rows, columns])
        return {name: np.concatenate(values) for name, values in parts.items()}


def _fits(examples: Sequence[Example], rung: Rung) -> bool:
    return (
        sum(len(e.patches) for e in examples) <= rung.max_patches
        and sum(len(e.tokens) for e in examples) <= rung.max_tokens
        and sum(len(e.views) for e in examples) <= rung.max_views
        and len(examples) <= rung.max_examples
    )


def _draw(rng: random.Random, weights: Mapping):
    return rng.choices(list(weights), weights=list(weights.values()))[0]
