"""Several answerers behind one, by policy: a tower of fixed size at each of its sizes."""

from collections.abc import Mapping, Sequence

from mres_jax.errors import PolicyError
from mres_jax.protocols import Answer, Answerer, Request, Sampling
from mres_jax.resolution.policies import parse_policy


class PolicyRouter:
    """Sends each request to the answerer of its policy; an `mres_jax.protocols.Answerer`.

    A model such as LLaVA-1.5 takes one size; resized to 224, 336 and 448 px it is three models,
    under `fixed:224`, `fixed:336` and `fixed:448`.
    """

    def __init__(self, answerers: Mapping[str, Answerer]):
        self.answerers = {str(parse_policy(text)): one for text, one in answerers.items()}

    def answer(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[list[Answer]]:
        """Returns `n` answers for each request, in the order of the requests.

        Raises:
          PolicyError: a request under a policy that no answerer has.
        """
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            policy = str(parse_policy(request.policy)) if request.policy else ""
            if policy not in self.answerers:
                raise PolicyError(
                    f"request {request.id!r}: no model for policy {policy or 'none'}; have "
                    f"{', '.join(self.answerers)}."
                )
            groups.setdefault(policy, []).append(i)
        answers: list[list[Answer]] = [[] for _ in requests]
        for policy, places in groups.items():
            some = self.answerers[policy].answer(
                [requests[i] for i in places], n=n, sampling=sampling, seed=seed
            )
            for i, here in zip(places, some, strict=True):
                answers[i] = here
        return answers
