"""One thread that answers what waits: requests that wait together are answered together."""

import collections
import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from mres_jax.inference.answer import Listener
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.serving.errors import ApiError

MAX_TOGETHER = 64  # requests; those beyond wait for the next round


@runtime_checkable
class Answers(Protocol):
    """An `Answerer` that can be listened to, such as `LocalAnswerer`."""

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int,
        sampling: Sampling,
        seed: int,
        listen: Listener | None = None,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request."""
        ...


class Kind(NamedTuple):
    """What requests must have in common to be answered together."""

    sampling: Sampling
    n: int
    seed: int


class Text(NamedTuple):
    """New text of one answer."""

    sample: int
    text: str


class Done(NamedTuple):
    """All answers to a request, or the reason why there are none."""

    answers: Sequence[Answer] = ()
    error: Exception | None = None


class Ticket:
    """A request that waits or is being answered; one reader takes its events."""

    def __init__(self, request: Request, kind: Kind, *, wants_text: bool):
        self.request, self.kind = request, kind
        self.is_cancelled = False
        self._wants_text = wants_text
        self._events: queue.SimpleQueue[Text | Done] = queue.SimpleQueue()
        self._sent: collections.Counter[int] = collections.Counter()  # characters by sample
        self._said: collections.Counter[int] = collections.Counter()

    def cancel(self) -> None:
        """Says that nobody wants the answer any more; it ends within a few tokens."""
        self.is_cancelled = True

    def next_event(self, timeout: float) -> Text | Done | None:
        """Returns what happened next; None when nothing did within `timeout` seconds."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return None

    def say(self, sample: int, text: str) -> None:
        """Takes text of an answer; what was sent before it began anew is not sent again."""
        before = self._said[sample]
        self._said[sample] += len(text)
        new = text[max(0, self._sent[sample] - before) :]
        if self._wants_text and new:
            self._sent[sample] += len(new)
            self._events.put(Text(sample, new))

    def begin_anew(self) -> None:
        """The answers are made once more, from their first token."""
        self._said.clear()

    def finish(self, done: Done) -> None:
        """Takes the last event."""
        self._events.put(done)


class Engine:
    """Answers tickets in rounds: the oldest, and with it all that wait and are of its kind.

    A request that fails spoils no other: those that were answered with it are answered alone.
    """

    def __init__(self, answerer: Answers, *, max_together: int = MAX_TOGETHER):
        self._answerer, self._max_together = answerer, max_together
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._taken: list[Ticket] = []  # of the last round
        self._changed = threading.Condition()
        self._is_closed = False
        self.num_answered, self.num_rounds = 0, 0
        self._thread = threading.Thread(target=self._run, name="mres-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, kind: Kind, *, wants_text: bool = False) -> Ticket:
        """Returns the ticket of a request.

        Raises:
          ApiError: 503, the engine is closed.
        """
        ticket = Ticket(request, kind, wants_text=wants_text)
        with self._changed:
            if self._is_closed:
                raise shutting_down()
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def close(self) -> None:
        """Takes no more requests; those that wait are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def end(self, seconds: float) -> None:
        """Refuses what waits and what is being answered, and waits for the thread to end.

        One that compiles, or runs a program, ends behind it: it may outlast the wait.

        Args:
          seconds: to wait at most.
        """
        self.close()
        with self._changed:
            tickets = [*self._taken, *self._waiting]
        for ticket in tickets:
            ticket.cancel()
            ticket.finish(Done(error=shutting_down()))  # after the last event nobody reads it
        self._thread.join(seconds)

    def _run(self) -> None:
        while tickets := self._next_round():
            self.num_rounds += 1
            self._answer(tickets)

    def _next_round(self) -> list[Ticket]:
        """The first ticket and those of its kind, waited for; none when closed and empty."""
        with self._changed:
            while True:
                wanted = [ticket for ticket in self._waiting if not ticket.is_cancelled]
                if wanted:
                    break
                self._waiting.clear()
                if self._is_closed:
                    return []
                self._changed.wait()
            same = [ticket for ticket in wanted if ticket.kind == wanted[0].kind]
            chosen = same[: self._max_together]
            ids = set(map(id, chosen))
            self._waiting = collections.deque(t for t in wanted if id(t) not in ids)
            self._taken = chosen
            return chosen

    def _answer(self, tickets: Sequence[Ticket]) -> None:
        def listen(request: int, sample: int, text: str) -> bool:
            tickets[request].say(sample, text)
            return tickets[request].is_cancelled

        try:
            answers = self._answerer.answer(
                [ticket.request for ticket in tickets],
                **tickets[0].kind._asdict(),
                listen=listen,
            )
        except Exception as error:  # whatever it is, the thread lives on
            if len(tickets) == 1:
                tickets[0].finish(Done(error=error))
                return
            for ticket in tickets:
                ticket.begin_anew()
                self._answer([ticket])
            return
        self.num_answered += sum(not ticket.is_cancelled for ticket in tickets)
        for ticket, some in zip(tickets, answers, strict=True):
            ticket.finish(Done(some))


def shutting_down() -> ApiError:
    """What is said to those who come too late."""
    message = "the server is shutting down. Ask another, or try again."
    return ApiError(503, message, kind="server_error", code="shutting_down", retry_after=5)
