"""Packs of generated documents for training: a pure function of (seed, step), so any step can be
drawn again and a restart needs nothing but its number."""

import itertools
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
from mres_jax.data.packing import check_ladder, pack
from mres_jax.data.patches import block_positions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.errors import ConfigError
from mres_jax.geometry import View
from mres_jax.ops import ROW_MULTIPLE
from mres_jax.resolution.policies import check_policy, parse_policy

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
SAMPLE = 100  # conversations looked at before the first pack
TRIES = 50  # draws that may have nothing to ask
MAX_MISFITS = 3  # draws in a row that no longer fit, after which a pack is closed


class DocumentStream:
    """Draws conversations about documents until a pack is full.

    The first draw chooses the rung: the smallest that holds it. A pack of small pictures holds many
    of them, so a first draw is kept with a probability proportional to the part of its rung that it
    fills. Later draws that do not fit what is left are passed over: each is made from (seed, step,
    number) alone, so no other step would have seen it. Small pictures therefore still come more
    often than the run's weights say.

    Raises:
      ConfigError: a conversation is larger than the largest rung.
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
        self.ladder = _checked(ladder)
        self.policies = {parse_policy(text): weight for text, weight in policies.items()}
        for policy in self.policies:
            check_policy(policy, spec)
        self.chances = self._chances()

    def pack(self, step: int) -> Pack:
        """The pack of one step."""
        rng = random.Random(f"{self.seed}/{step}")
        draws = (self.example(random.Random(f"{self.seed}/{step}/{i}")) for i in itertools.count())
        first = next(draw for draw in draws if rng.random() < self.chances[self._rung(draw)])
        rung, examples, misfits = self._rung(first), [first], 0
        while misfits < MAX_MISFITS:
            example = next(draws)
            self._rung(example)  # refuses what no pack will ever hold
            fits = _fits([*examples, example], rung)
            examples += [example] if fits else []
            misfits = 0 if fits else misfits + 1
        return pack(examples, rung)

    def _rung(self, example: Example) -> Rung:
        for rung in self.ladder:
            if _fits([example], rung):
                return rung
        raise ConfigError(
            f"run: a conversation of {len(example.patches)} patches, {len(example.tokens)} tokens "
            f"and {len(example.views)} views is larger than the largest rung, {self.ladder[-1]}. "
            "Add a larger one, or draw smaller or fewer pictures."
        )

    def _chances(self) -> dict[Rung, float]:
        """Chance to keep a first draw, by rung: the part of it that one fills, in a sample."""
        parts: dict[Rung, list[float]] = {rung: [] for rung in self.ladder}
        for number in range(SAMPLE):
            example = self.example(random.Random(f"{self.seed}/sample/{number}"))
            rung = self._rung(example)
            parts[rung].append(
                max(len(example.patches) / rung.max_patches, len(example.tokens) / rung.max_tokens)
            )
        means = {rung: sum(some) / len(some) if some else 1.0 for rung, some in parts.items()}
        return {rung: mean / max(means.values()) for rung, mean in means.items()}

    def example(self, rng: random.Random) -> Example:
        """One conversation: pictures, then a few questions with their answers."""
        documents, views, questions = self._seen(rng)
        messages = []
        for i, (question, answer) in enumerate(self._turns(rng, questions)):
            pictures = tuple(range(len(documents))) if not i else ()
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

    def _seen(self, rng: random.Random) -> tuple[list[Document], list[View], list[Question]]:
        """Pictures, how they are looked at, and what can be asked about them then."""
        for _ in range(TRIES):
            count = int(_draw(rng, self.data.images_per_prompt))
            documents = [self._document(rng, small=count > 1) for _ in range(count)]
            sizes = [d.size for d in documents]
            for policy in (_draw(rng, self.policies), NATIVE):
                views = policy(sizes, "", self.spec)
                if questions := self._questions(documents, views):
                    return documents, views, questions
        raise ConfigError(
            f"run: {TRIES} draws of {', '.join(self.data.kinds)} in a row gave nothing to ask: no "
            f"question of type {', '.join(self.data.questions)} with text of at least "
            f"min_text_height={self.data.min_text_height} px. Widen `data`."
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
        return chosen

    def _labels(
        self, documents: Sequence[Document], views: Sequence[View]
    ) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {name: [] for name in PATCH_CLASSES}
        for view in views:
            document, size = documents[view.item], self.spec.patch_size
            named = patch_labels(document, view, patch_size=size, columns=COLUMNS)
            rows, columns = block_positions(view.grid(size), merge_size=self.spec.merge_size).T
            for name, values in named.items():
                for column in range(COLUMNS):
                    cells = values[rows, columns * COLUMNS + column]
                    parts[f"{name}{column}"].append(cells)
            for topic, values in scene_labels(document, view, patch_size=size).items():
                parts[topic].append(values[rows, columns])
        return {name: np.concatenate(values) for name, values in parts.items()}


def _checked(ladder: Sequence[Rung]) -> tuple[Rung, ...]:
    ladder = check_ladder(ladder)
    for rung in ladder:
        for name in ("max_patches", "max_tokens"):
            if getattr(rung, name) % ROW_MULTIPLE:
                raise ConfigError(
                    f"run: ladder: {name}={getattr(rung, name)} is not a multiple of "
                    f"{ROW_MULTIPLE}, as attention over packs needs."
                )
    return ladder


def _fits(examples: Sequence[Example], rung: Rung) -> bool:
    return (
        sum(len(e.patches) for e in examples) <= rung.max_patches
        and sum(len(e.tokens) for e in examples) <= rung.max_tokens
        and sum(len(e.views) for e in examples) <= rung.max_views
        and len(examples) <= rung.max_examples
    )


def _draw(rng: random.Random, weights: Mapping):
    return rng.choices(list(weights), weights=list(weights.values()))[0]
