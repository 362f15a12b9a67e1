"""Laws of the queue: who is answered with whom, and what a neighbour's fate means to the others."""

import threading
import time
from typing import NamedTuple

import pytest

from mres_jax.errors import RunError
from mres_jax.protocols import Request, Sampling
from mres_jax.serving.engine import Done, Engine, Kind, Text
from mres_jax.serving.errors import ApiError
from mres_jax.serving.limits import Limits, Room

GREEDY = Kind(Sampling(), 1, 0)
WAIT = 30.0


class Said(NamedTuple):
    """What stands for an answer here."""

    text: str


class Script:
    """Answers a question with its capitals, letter by letter; one with `!` fails at that letter."""

    def __init__(self):
        self.rounds: list[list[str]] = []
        self.gate = threading.Semaphore(0)

    def answer(self, requests, *, n, sampling, seed, listen=None):
        self.gate.acquire()
        self.rounds.append([request.question for request in requests])
        answers = [[] for _ in requests]
        for i, request in enumerate(requests):
            for sample in range(n):
                text = ""
                for letter in request.question.upper():
                    if letter == "!":
                        raise RunError(f"request {request.id!r} failed")
                    text += letter
                    if listen is not None and listen(i, sample, letter):
                        break
                answers[i].append(Said(text))
        return answers


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def engine(script):
    engine = Engine(script, max_together=3)
    yield engine
    engine.close()
    script.gate.release(99)
    engine._thread.join(WAIT)
    assert not engine._thread.is_alive()


def submit(engine, question, kind=GREEDY, **options):
    return engine.submit(Request(id=question, question=question), kind, **options)


def events(ticket):
    found = []
    while not found or isinstance(found[-1], Text):
        found.append(ticket.next_event(WAIT))
        assert found[-1] is not None, "it was forgotten"
    return found


def texts(done):
    assert done.error is None
    return [answer.text for answer in done.answers]


def block(engine, script):
    """Lets a first request in, which holds the engine until the gate opens."""
    return taken(engine, submit(engine, "first"))


def taken(engine, ticket):
    """The ticket, once the engine has taken it."""
    while engine._waiting:
        time.sleep(0.001)
    return ticket


def test_what_waits_together_and_is_of_one_kind_is_answered_together_in_order(engine, script):
    block(engine, script)
    other = Kind(Sampling(temperature=1.0), 2, 0)
    tickets = [submit(engine, q) for q in ("a", "b")]
    odd = submit(engine, "x", other)
    tickets += [submit(engine, q) for q in ("c", "d")]
    script.gate.release(4)
    assert [texts(events(ticket)[-1]) for ticket in tickets] == [["A"], ["B"], ["C"], ["D"]]
    assert texts(events(odd)[-1]) == ["X", "X"]
    assert script.rounds == [["first"], ["a", "b", "c"], ["x"], ["d"]]
    assert engine.num_answered == 6


def test_a_request_that_fails_spoils_no_other_and_no_text_is_sent_twice(engine, script):
    block(engine, script)
    good = submit(engine, "abc", wants_text=True)
    bad = submit(engine, "xy!z", wants_text=True)
    late = submit(engine, "de", wants_text=True)
    script.gate.release(9)
    assert [e.text for e in events(good)[:-1]] == ["A", "B", "C"]
    assert [e.text for e in events(late)[:-1]] == ["D", "E"]
    *before, failed = events(bad)
    assert [e.text for e in before] == ["X", "Y"]
    assert isinstance(failed, Done)
    assert str(failed.error) == "request 'xy!z' failed"
    assert texts(events(submit(engine, "on"))[-1]) == ["ON"]


def test_what_nobody_wants_any_more_is_not_answered(engine, script):
    block(engine, script)
    gone, kept = submit(engine, "gone"), submit(engine, "kept")
    gone.cancel()
    script.gate.release(9)
    assert texts(events(kept)[-1]) == ["KEPT"]
    assert script.rounds == [["first"], ["kept"]]
    assert gone.next_event(0.0) is None


def test_an_answer_ends_when_nobody_wants_it_any_more(engine, script):
    ticket = taken(engine, submit(engine, "long"))
    ticket.cancel()
    script.gate.release(1)
    assert texts(events(ticket)[-1]) == ["L"]


def test_a_closed_engine_answers_what_waits_and_takes_no_more(engine, script):
    first = block(engine, script)
    waiting = submit(engine, "waits")
    engine.close()
    with pytest.raises(ApiError, match="shutting down") as error:
        submit(engine, "late")
    assert (error.value.status, error.value.retry_after) == (503, 5)
    script.gate.release(9)
    assert texts(events(first)[-1]) == ["FIRST"]
    assert texts(events(waiting)[-1]) == ["WAITS"]


def test_an_engine_that_ends_refuses_what_waits_and_what_is_answered(engine, script):
    tickets = [block(engine, script), submit(engine, "waits")]
    engine.end(0.01)
    for ticket in tickets:
        assert events(ticket)[-1].error.status == 503
    assert engine._thread.is_alive()  # what runs cannot be ended, and is waited for no longer
    script.gate.release(9)
    engine.end(WAIT)
    assert not engine._thread.is_alive()
    assert script.rounds == [["first"]]


def test_a_room_is_never_fuller_than_it_may_be():
    limits = Limits(max_waiting=2, max_pixels=10, max_waiting_pixels=15)
    room = Room(limits)
    with room.enter() as one, room.enter() as two:
        with pytest.raises(ApiError, match="2 requests wait already") as error:
            room.enter()
        assert (error.value.status, error.value.retry_after) == (429, 1)
        one.take(10)
        with pytest.raises(ApiError, match="pictures of 10 px wait already"):
            two.take(6)
        two.take(5)
        assert (room.num_requests, room.num_pixels) == (2, 15)
    assert (room.num_requests, room.num_pixels) == (0, 0)
    with room.enter() as again:
        again.take(10)
