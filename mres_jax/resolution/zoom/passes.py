"""The two passes over any answerer: find a place, look closely, add up what both cost."""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.errors import MresError, PolicyError
from mres_jax.geometry import Box, Size
from mres_jax.protocols import Answer, Answerer, Request, Sampling, extent_of
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.zoom.places import Place, find_places
from mres_jax.resolution.zoom.policies import Window, Zoom
from mres_jax.resolution.zoom.prompts import ZoomPrompts, load_prompts
from mres_jax.resolution.zoom.windows import window_around

FIND = Sampling(max_new_tokens=128)  # of the first pass
DRAW = Sampling(temperature=1.0, max_new_tokens=128)  # of further candidates
Once = Callable[..., list[list[Answer]]]  # an answerer's `answer`, for policies of one pass
Point = Callable[[Sequence[Request]], list[Answer]]  # places as text, see `LocalAnswerer.point`
AS_ASKED = ZoomPrompts(name="as asked", find="{question}")


class ZoomAnswerer:
    """An answerer whose first pass another model may make; an `mres_jax.protocols.Answerer`."""

    def __init__(self, extractor: Answerer, predictor: Answerer, *, policy: str = "zoom"):
        """Makes an answerer.

        Args:
          extractor: finds the place, under `zoom` policies.
          predictor: answers.
          policy: for requests that name none.
        """
        self.extractor, self.predictor, self.policy = extractor, predictor, policy

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request; see `mres_jax.protocols.Answerer`."""
        return answer_in_passes(
            self.predictor.answer,
            requests,
            policy=self.policy,
            extract=self.extractor.answer,
            point=getattr(self.extractor, "point", None),
            coord_frame=_frame_of(self.extractor),
            answer_frame=_frame_of(self.predictor),
            n=n,
            sampling=sampling or Sampling(),
            seed=seed,
        )


def answer_in_passes(
    once: Once,
    requests: Sequence[Request],
    *,
    policy: str,
    n: int,
    sampling: Sampling,
    seed: int,
    extract: Once | None = None,
    point: Point | None = None,
    coord_frame: str | None = None,
    answer_frame: str | None = None,
) -> list[list[Answer]]:
    """Answers requests, those with a `zoom` policy in two passes, in the order of the requests.

    Args:
      once: answers requests of one pass.
      requests: of any policies.
      policy: for requests that name none.
      n: answers per request.
      sampling: of the answers; the first pass is greedy.
      seed: of drawn tokens and of windows by chance.
      extract: makes the first pass; `once` when None.
      point: makes it under `source=gradient`; None where there are no gradients.
      coord_frame: how the first model writes coordinates, for its prompts.
      answer_frame: likewise the second; as the first when None.

    Raises:
      MresError: fewer answers than one.
      PolicyError: a window larger than its picture; no or several pictures; no place, where that is
        an error. It names the request.
    """
    if n < 1:
        raise MresError(f"answer: n={n} must be at least 1.")
    ask = functools.partial(once, n=n, sampling=sampling, seed=seed)
    texts = [request.policy or policy for request in requests]
    parsed = {text: parse_policy(text) for text in dict.fromkeys(texts)}
    zooms = {text: zoom for text, zoom in parsed.items() if isinstance(zoom, Zoom)}
    if not zooms:
        return ask(requests)
    answers: list[list[Answer]] = [[] for _ in requests]
    plain = [i for i, text in enumerate(texts) if text not in zooms]
    if plain:
        _put(answers, plain, ask([requests[i] for i in plain]))
    for text, zoom in zooms.items():
        here = [i for i, other in enumerate(texts) if other == text]
        some = [requests[i] for i in here]
        find, prompts = functools.partial(extract or once, seed=seed), load_prompts(zoom.prompts)
        finding = prompts
        if zoom.source == "gradient":
            find, finding = _pointer(point, zoom), AS_ASKED
        finder = _Finder(find, zoom, finding, coord_frame, seed)
        frame = prompts.coord_frame or answer_frame or finder.coord_frame
        asking = functools.partial(prompts.predicting, coord_frame=frame)
        _put(answers, here, _look_closely(ask, some, zoom, finder.find(some), asking))
    return answers


def _frame_of(answerer: Answerer) -> str | None:
    return getattr(getattr(answerer, "spec", None), "coord_frame", None)


def _put(answers: list[list[Answer]], places: Sequence[int], some: list[list[Answer]]) -> None:
    for i, here in zip(places, some, strict=True):
        answers[i] = here


def _pointer(point: Point | None, zoom: Zoom) -> Once:
    if point is None:
        raise PolicyError(
            f"policy {zoom}: source=gradient needs the gradients of a model in this process, which "
            "a server does not send. Use source=model, or load the weights."
        )
    return lambda requests, **_: [[answer] for answer in point(requests)]


class Found(NamedTuple):
    """What the first pass came to.

    Attributes:
      boxes: windows; none where the whole picture is taken.
      passes: its answers.
      note: what is wrong, "" where nothing is.
    """

    boxes: tuple[Box, ...]
    passes: tuple[Answer, ...]
    note: str


class _Finder:
    """The first pass."""

    def __init__(
        self, ask: Once, zoom: Zoom, prompts: ZoomPrompts, coord_frame: str | None, seed: int
    ):
        self.ask, self.zoom, self.prompts, self.seed = ask, zoom, prompts, seed
        self.coord_frame = prompts.coord_frame or coord_frame or "relative_1000"

    def find(self, requests: Sequence[Request]) -> list[Found]:
        """The windows of all requests."""
        # Before anything is asked: a batch is not answered in half.
        extents = [_window_of(request, self.zoom) for request in requests]
        sizes = [_size(request) for request in requests]
        if self.zoom.source == "random":
            return [self._by_chance(*each) for each in zip(requests, sizes, extents, strict=True)]
        first = [self._first(r, size) for r, size in zip(requests, sizes, strict=True)]
        answers = [list(some) for some in self.ask(first, n=1, sampling=FIND)]
        found = [self._read(*each) for each in zip(answers, sizes, extents, strict=True)]
        few = [i for i, each in enumerate(found) if len(each.boxes) < self.zoom.candidates]
        may_draw = self.zoom.source == "model" and self.zoom.candidates > 1
        if may_draw and few:  # the first answer named too few: draw others
            others = self.ask([first[i] for i in few], n=self.zoom.candidates - 1, sampling=DRAW)
            for i, more in zip(few, others, strict=True):
                found[i] = self._read([*answers[i], *more], sizes[i], extents[i])
        return [self._checked(r, each) for r, each in zip(requests, found, strict=True)]

    def _first(self, request: Request, size: Size) -> Request:
        question = self.prompts.finding(
            request.question, coord_frame=self.coord_frame, count=self.zoom.candidates
        )
        whole = Window.of([Box(0, 0, *size)], fine=self.zoom.coarse)
        return request.asking(question, policy=str(whole))

    def _read(self, answers: Sequence[Answer], size: Size, extent: Size) -> Found:
        """The windows in some answers, none inside the middle of an earlier one."""
        boxes, problem = [], ""
        for answer in answers:
            (view,) = answer.views
            frame = self.prompts.coord_frame or answer.coord_frame
            several = self.zoom.candidates > 1
            places = find_places(
                answer.text, view=view, coord_frame=frame, picture=size, several=several
            )
            problem = problem or places.problem
            for place in places.places:
                y, x = self._centre(place, size)
                if not any(_is_near(y, x, box) for box in boxes):
                    boxes.append(window_around(y, x, extent, size))
        return Found(tuple(boxes[: self.zoom.candidates]), tuple(answers), problem)

    def _centre(self, place: Place, size: Size) -> tuple[float, float]:
        y, x = place.centre
        if self.zoom.compat == "release" and self.zoom.window > 1:
            # thousandths times the window's side: places end up near the upper left corner
            y, x = y * self.zoom.window / size.height, x * self.zoom.window / size.width
        return y, x

    def _by_chance(self, request: Request, size: Size, extent: Size) -> Found:
        draw = np.random.default_rng([self.seed, zlib.crc32(request.id.encode())])
        boxes = []
        for _ in range(self.zoom.candidates):
            y, x = draw.random(2)
            if self.zoom.compat == "release":  # the middle of a box that begins at random
                y, x = ((low + draw.uniform(low, 1)) / 2 for low in (y, x))
            boxes.append(window_around(y * size.height, x * size.width, extent, size))
        return Found(tuple(boxes), (), "the window was drawn by chance")

    def _checked(self, request: Request, found: Found) -> Found:
        if found.boxes:
            return found._replace(note="")
        if self.zoom.fallback == "error":
            raise PolicyError(f"request {request.id!r}: policy {self.zoom}: {found.note}.")
        return found._replace(note=f"no window: {found.note}; the whole picture was taken")


def _look_closely(
    ask: Callable[[Sequence[Request]], list[list[Answer]]],
    requests: Sequence[Request],
    zoom: Zoom,
    found: Sequence[Found],
    asking: Callable[[str], str],
) -> list[list[Answer]]:
    """The second pass: one request per picture, or per window where they are shown one by one."""
    second, owners = [], []
    for i, (request, each) in enumerate(zip(requests, found, strict=True)):
        question = asking(request.question)
        for policy in _second_policies(zoom, each.boxes, _size(request)):
            second.append(request.asking(question, policy=str(policy)))
            owners.append(i)
    groups: list[list[list[Answer]]] = [[] for _ in requests]
    for i, some in zip(owners, ask(second), strict=True):
        groups[i].append(some)
    return [
        [_joined(request, each, alternatives, zoom) for alternatives in zip(*group, strict=True)]
        for request, each, group in zip(requests, found, groups, strict=True)
    ]


def _second_policies(zoom: Zoom, boxes: Sequence[Box], size: Size) -> list[Window]:
    make: Any = functools.partial(Window.of, context=zoom.context, fine=zoom.fine)
    if not boxes:
        return [Window.of([Box(0, 0, *size)], fine=zoom.coarse)]
    coarse = zoom.coarse if zoom.context == "both" else None
    groups = [boxes] if zoom.join == "views" else [[box] for box in boxes]
    return [make(group, coarse=coarse) for group in groups]


def _joined(request: Request, found: Found, alternatives: Sequence[Answer], zoom: Zoom) -> Answer:
    """The best answer of the second pass, with all passes and their cost."""
    silent = [answer for answer in alternatives if answer.text and not answer.logprobs]
    if len(alternatives) > 1 and silent:
        raise PolicyError(
            f"request {request.id!r}: policy {zoom}: join=best compares {len(alternatives)} "
            f"answers by their log-probabilities, and {len(silent)} came without. Use join=views, "
            "or a model that tells them."
        )
    best = max(alternatives, key=_confidence)
    passes = (*found.passes, *alternatives)
    cost = functools.reduce(lambda a, b: a + b, (answer.cost for answer in passes))
    lost = zoom.compat == "release" and not found.boxes
    note = "; ".join(text for text in (found.note, best.note) if text)
    return dataclasses.replace(
        best, cost=cost, passes=passes, note=note, **({"text": ""} if lost else {})
    )


def _confidence(answer: Answer) -> float:
    """Mean log-probability of the tokens; an empty answer is the last to be taken."""
    return sum(answer.logprobs) / len(answer.logprobs) if answer.logprobs else -math.inf


def _is_near(y: float, x: float, box: Box) -> bool:
    """Whether a place lies in the middle half of a window."""
    return (
        abs(2 * y - box.top - box.bottom) < box.size.height / 2
        and abs(2 * x - box.left - box.right) < box.size.width / 2
    )


def _window_of(request: Request, zoom: Zoom) -> Size:
    """Extent of a request's windows, px."""
    try:
        return zoom.window_in([extent_of(item) for item in request.images])
    except PolicyError as error:
        raise PolicyError(f"request {request.id!r}: {error}") from None


def _size(request: Request) -> Size:
    """Of the one picture."""
    (extent,) = (extent_of(item) for item in request.images)
    assert isinstance(extent, Size)  # `Zoom.window_in` takes no clips
    return extent
