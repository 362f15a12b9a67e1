"""A reader that needs no model: what it says follows from what it is shown."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import pytest

from mres_jax.data.spec import ProcessorSpec
from mres_jax.evaluation.arms import Contestant, Entrant
from mres_jax.evaluation.arms.contestants import processor_facts
from mres_jax.evaluation.arms.samples import Sample
from mres_jax.protocols import Answer, Request, extent_of
from mres_jax.resolution.cost import retention_ratio, visual_tokens
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import said, tiny_spec, tiny_tokenizer


def digest_reader(request: Request, tokens: int) -> str:
    """A text that no two pictures share."""
    parts = [request.question.encode(), *(image.tobytes() for image in request.images)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[: 4 + tokens % 5]


@dataclasses.dataclass
class Reader:
    """Answers by a rule from the request and its visual tokens; may be stopped on the way.

    Attributes:
      spec: of the processor.
      read: the rule.
      left: batches that it answers before it is stopped; None answers all.
      asked: ids of the questions so far.
    """

    spec: ProcessorSpec
    read: Callable[[Request, int], str] = digest_reader
    left: int | None = None
    asked: list[str] = dataclasses.field(default_factory=list)

    def answer(self, requests: Sequence[Request], *, n=1, sampling=None, seed=0):
        """Answers, or is killed."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.asked += [request.id for request in requests]
        return [[self._one(request)] for request in requests]

    def _one(self, request: Request) -> Answer:
        sizes = [extent_of(image) for image in request.images]
        policy = parse_policy(request.policy or "native")
        views = policy(sizes, request.question, self.spec) if sizes else []
        tokens = visual_tokens(views, self.spec)
        return said(
            self.read(request, tokens),
            views=views,
            logprobs=(0.0, 0.0),
            visual_tokens=tokens,
            retention_ratio=retention_ratio(views, sizes, self.spec),
            flops=1e6 * (tokens + 5),
            ms={"host": 1.0},
        )


@pytest.fixture(scope="session")
def spec() -> ProcessorSpec:
    return dataclasses.replace(tiny_spec(tiny_tokenizer()), max_pixels=768 * 768)


@pytest.fixture
def enter(spec):
    """Makes an entrant of a reader; `changes` are of its identity."""

    def make(reader: Reader | None = None, *, name="reader", trained=(), **changes) -> Entrant:
        asked = reader or Reader(spec)
        identity = {"fingerprint": "f" * 16, "processor": processor_facts(spec), **changes}

        def load() -> Contestant:
            return Contestant(
                name=name,
                source="here",
                answerer=asked,
                spec=spec,
                identity=identity,
                trained=trained,
            )

        return Entrant(spec=spec, policy="native", open=load)

    return make


@pytest.fixture
def make_reader(spec):
    return lambda **options: Reader(spec, **options)


@pytest.fixture
def make_sample():
    """Makes an answered question; `changes` are fields of it."""
    plain = Sample(
        id="",
        question="q",
        answers=("a",),
        prediction="a",
        score=1.0,
        metric="exact",
        type="",
        group="",
        visual_tokens=1,
        retention_ratio=1.0,
        flops=0.0,
        cell=None,
        text_height=None,
        seen_height=None,
        views=(),
        ms=None,
    )
    return lambda id_, **changes: dataclasses.replace(plain, **({"group": id_} | changes), id=id_)
