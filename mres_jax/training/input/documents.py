"""Generated documents as examples: each is a function of (seed, epoch, number) alone."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mres_jax.config import Documents
from mres_jax.data.assemble import assemble, measure
from mres_jax.data.conversations import Message
from mres_jax.data.documents import (
    KEYS,
    LABEL_CHARSET,
    SC_ANSWERS,
    VOCABULARY,
    Document,
    Options,
    Question,
    make_document,
    patch_labels,
    scene_labels,
)
from mres_jax.data.documents.boards import BOARD_KINDS, make_board_picture
from mres_jax.data.documents.clips import draw_clip
from mres_jax.data.documents.labels import MAX_INDEX, PLACES, place_labels
from mres_jax.data.documents.pages import KIND as PAGE, make_page
from mres_jax.data.documents.questions import place_in
from mres_jax.data.documents.render import KEY
from mres_jax.data.patches import block_positions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer
from mres_jax.data.types import Example
from mres_jax.errors import ConfigError
from mres_jax.geometry import View
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.policy import Policy

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
PATCH_CLASSES |= {"across": 1 + PLACES, "down": 1 + PLACES}
NATIVE = parse_policy("native")
TEMPLATE_WORDS = ("You", "are", "a", "helpful", "assistant", "system", "user")
HARD_HEIGHTS = (8, 9)  # px of a capital
HARD_GROUNDS = ("striped", "checked", "shaded", "rough", "photo")
TRIES = 50  # draws that may have nothing to ask


class Conversation(NamedTuple):
    """Pictures, how they are looked at, and what is said about them; nothing is painted yet."""

    documents: tuple[Document, ...]
    views: tuple[View, ...]
    messages: tuple[Message, ...]


class DocumentExamples:
    """Conversations about generated documents; see `examples.Examples`.

    Args:
      data: the mixture.
      policies: with their weights; each conversation draws one.
      spec, tokenizer: of the model.
      seed: of everything.
      label_mask: see `tokenize_messages`.
      labelled: name what stands on every patch, for auxiliary losses.
    """

    def __init__(
        self,
        data: Documents,
        *,
        policies: Mapping[Policy, float],
        spec: ProcessorSpec,
        tokenizer: Tokenizer,
        seed: int | str,
        label_mask: str = "answer",
        labelled: bool = False,
    ):
        if data.policies:
            policies = {parse_policy(text): weight for text, weight in data.policies.items()}
        self.data, self.policies, self.spec, self.tokenizer = data, policies, spec, tokenizer
        self.seed, self.label_mask, self.labelled = seed, label_mask, labelled
        # Where nothing is legible under a policy; models for one size have no other.
        self.instead = (NATIVE,) if spec.image_size is None else ()
        self.cell = int(spec.patch_extent)
        if labelled and self.cell != spec.patch_extent:
            raise ConfigError(
                f"run: aux_loss_weight names what stands on each patch, but one stands for "
                f"{spec.patch_extent:.2f} px of a view. Set it to 0, or take another "
                "input_image_size."
            )

    def sizes(self, epoch: int) -> Int[np.ndarray, "examples 3"]:
        """Sizes of all examples of an epoch."""
        drawn = (self.conversation(epoch, number) for number in range(self.data.examples))
        return np.array(
            [measure(c.views, c.messages, self.spec, self.tokenizer) for c in drawn], np.int64
        )

    def has_clip(self, epoch: int) -> Bool[np.ndarray, " examples"]:
        """None has: frames of a clip are pictures here."""
        del epoch
        return np.zeros(self.data.examples, bool)

    def name(self, epoch: int, number: int) -> str:
        """For messages."""
        return f"conversation {number} of epoch {epoch} about documents"

    def example(self, epoch: int, number: int) -> Example:
        """Pictures, then a few questions with their answers."""
        return self.painted(self.conversation(epoch, number))

    def painted(self, conversation: Conversation) -> Example:
        """A conversation as an example."""
        documents, views, messages = conversation
        return assemble(
            [document.image for document in documents],
            views,
            messages,
            self.spec,
            self.tokenizer,
            label_mask=self.label_mask,
            patch_labels=self._labels(documents, views) if self.labelled else {},
        )

    def conversation(self, epoch: int, number: int) -> Conversation:
        """Draws one.

        Raises:
          ConfigError: the run asks for what its pictures never have.
        """
        rng = random.Random(f"{self.seed}/{epoch}/{number}")
        if self.data.clip_frames:
            return self._clip(rng)
        for _ in range(TRIES):
            count = int(_draw(rng, self.data.images_per_prompt))
            documents = tuple(self._document(rng, small=count > 1) for _ in range(count))
            sizes = [d.size for d in documents]
            for policy in (_draw(rng, self.policies), *self.instead):
                views = tuple(policy(sizes, "", self.spec))
                if len(views) > count and self.data.questions.get("point"):
                    raise ConfigError(
                        f"run: a question of type point is answered in the one view that its "
                        f"picture has, but policy {policy} shows {len(views)} of {count} "
                        "pictures. Leave out such questions, or give data.policies of one view."
                    )
                if questions := self.questions(documents, views):
                    messages = self._messages(rng, questions, count, views)
                    return Conversation(documents, views, messages)
        raise ConfigError(
            f"run: {TRIES} draws of {', '.join(self.data.kinds)} in a row gave nothing to ask: no "
            f"question of type {', '.join(self.data.questions)} with text of at least "
            f"min_text_height={self.data.min_text_height} px. Widen `data`."
        )

    def questions(self, documents: Sequence[Document], views: Sequence[View]) -> list[Question]:
        """What can be asked: legible in its view, and with several pictures true of one only."""
        asked, least = [], {"rc": self.data.min_text_height, "point": self.data.min_name_height}
        for view in views:
            height, width = view.crop.size
            scale = min(view.size.height / height, view.size.width / width)
            asked += [
                q
                for q in documents[view.item].questions
                if q.type in self.data.questions
                and (q.scorer != "box" or self.data.place_step == 1)
                and (q.type == "sc" or scale * _height(q, documents[view.item]) >= least[q.type])
            ]
        if len(documents) > 1:
            keys = [f.key for d in documents for f in d.fields]
            once = {key for key in keys if key and keys.count(key) == 1}
            asked = [q for q in asked if q.type == "rc" and q.tags[0] in once]
        return asked

    def _clip(self, rng: random.Random) -> Conversation:
        """Frames that each draw a policy, but for those that tell: these are read."""
        clip = draw_clip(rng.getrandbits(48), int(_draw(rng, self.data.clip_frames or {})))
        sizes = [document.size for document in clip.frames]
        looks = [
            NATIVE if i in clip.telling else _draw(rng, self.policies) for i in range(len(sizes))
        ]
        found = {look: look(sizes, "", self.spec) for look in dict.fromkeys(looks)}
        views = tuple(found[look][i] for i, look in enumerate(looks))
        messages = self._messages(rng, clip.questions, len(sizes), views)
        return Conversation(clip.frames, views, messages)

    def _document(self, rng: random.Random, *, small: bool) -> Document:
        kind, seed = _draw(rng, self.data.kinds), rng.getrandbits(48)
        most = self.data.pairs_per_page
        options = self._options(rng)
        if kind in BOARD_KINDS:
            return make_board_picture(seed, kind=kind)
        if kind == PAGE:
            return make_page(seed, max_pairs=min(3, most) if small else most, options=options)
        bins = {b: w for b, w in self.data.area_bins.items() if not small or b in "BC"}
        area_bin = _draw(rng, bins or {"B": 1.0})
        return make_document(seed, area_bin=area_bin, kind=kind, options=options)

    def _options(self, rng: random.Random) -> Options:
        """Harder text for a share of the documents: small letters on uneven grounds."""
        if rng.random() >= self.data.hard_share:
            return Options(cap_heights=self.data.cap_heights)
        return Options(cap_heights=HARD_HEIGHTS, grounds=HARD_GROUNDS)

    def _messages(
        self,
        rng: random.Random,
        questions: Sequence[Question],
        num_pictures: int,
        views: Sequence[View],
    ) -> tuple[Message, ...]:
        """Turns about some of the questions, no topic twice; the first shows the pictures."""
        asked, weights = list(questions), self.data.questions
        rng.shuffle(asked)
        messages: list[Message] = []
        while asked and len(messages) < 2 * self.data.questions_per_image:
            kinds = {q.type: weights[q.type] for q in asked}
            kind = _draw(rng, kinds) if sum(kinds.values()) else asked[0].type
            question = next(q for q in asked if q.type == kind)
            asked = [q for q in asked if q.tags[0] != question.tags[0]]
            pictures = () if messages else tuple(range(num_pictures))
            messages.append(Message(role="user", parts=(*pictures, question.text)))
            messages.append(
                Message(
                    role="assistant", parts=(_answer(question, views[0], self.data.place_step),)
                )
            )
        return tuple(messages)

    def _labels(
        self, documents: Sequence[Document], views: Sequence[View]
    ) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {name: [] for name in PATCH_CLASSES}
        for view in views:
            document, size = documents[view.item], self.cell
            named = patch_labels(document, view, patch_size=size, columns=COLUMNS)
            rows, columns = block_positions(view.grid(size), merge_size=self.spec.merge_size).T
            for name, values in named.items():
                for column in range(COLUMNS):
                    cells = values[rows, columns * COLUMNS + column]
                    parts[f"{name}{column}"].append(cells)
            scene = scene_labels(document, view, patch_size=size)
            for topic, values in (scene | place_labels(view, patch_size=size)).items():
                parts[topic].append(values[rows, columns])
        return {name: np.concatenate(values) for name, values in parts.items()}


def _height(question: Question, document: Document) -> int:
    """Capitals that must be told apart, px: of the value to read it, of its name to point at it."""
    if question.type != "point":
        return question.text_height
    (number,) = (i for i, f in enumerate(document.fields) if f.value_box == question.box)
    names = [run for run in document.plan.runs if run.field == number and run.part == KEY]
    return names[0].face.cap_height


def _answer(question: Question, view: View, step: int) -> str:
    """What one who sees a view is to say."""
    if question.type != "point":
        return question.answer
    assert question.box is not None  # questions of this type ask for it
    return place_in(view, question.box, scorer=question.scorer, step=step)


def document_tokenizer() -> Tokenizer:
    """Bytes, the words of generated documents and of the chat template, control tokens."""
    words = {word for word in (*VOCABULARY, *TEMPLATE_WORDS) if word.isalpha()}
    return Tokenizer(build_tiny_tokenizer(sorted(words)))


def _draw(rng: random.Random, weights: Mapping):
    return rng.choices(list(weights), weights=list(weights.values()))[0]
