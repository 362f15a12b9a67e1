"""Who is asked: a model here or a server, and what its answers depend on."""

import dataclasses
import hashlib
import json
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from mres_jax.data.spec import ProcessorSpec
from mres_jax.evaluation.records import fingerprint
from mres_jax.evaluation.trials import NO_PICTURE
from mres_jax.inference import VLM
from mres_jax.inference.remote import RemoteAnswerer
from mres_jax.protocols import Answerer
from mres_jax.resolution.policies import check_policy, parse_policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who answers.

    Attributes:
      name: in results.
      source: directory, hub id or address.
      answerer: a model here, or a server.
      spec: of its processor.
      identity: what its answers depend on, plain values.
      trained: policies it was trained with; empty where nobody says.
    """

    name: str
    source: str
    answerer: Answerer
    spec: ProcessorSpec
    identity: Mapping[str, Any]
    trained: tuple[str, ...] = ()

    @classmethod
    def of_model(cls, name: str, source: str, vlm: VLM) -> "Contestant":
        """A model in this process."""
        dtype = jnp.dtype(vlm.model.text.embed.dtype).name
        weights = {"fingerprint": fingerprint(vlm.model), "dtype": dtype}
        return cls(
            name=name,
            source=source,
            answerer=vlm.answerer,
            spec=vlm.spec,
            identity={**weights, "processor": processor_facts(vlm.spec)},
            trained=trained_policies(vlm),
        )

    @classmethod
    def of_server(cls, name: str, answerer: RemoteAnswerer) -> "Contestant":
        """A server; its weights are its own, and its template where nobody named its model."""
        address = f"{answerer.server.url}#{answerer.model}"
        facts = processor_facts(answerer.spec)
        if answerer.tokenizer is None:
            facts["template_sha256"] = None
        identity = {"address": address, "processor": facts}
        return cls(
            name=name, source=address, answerer=answerer, spec=answerer.spec, identity=identity
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entrant:
    """A model that will be asked later.

    Attributes:
      spec: of its processor, so that policies can be checked before any is loaded.
      policy: its own.
      open: loads it.
    """

    spec: ProcessorSpec
    policy: str
    open: Callable[[], Contestant]


def policies_of(entrant: Entrant, policies: Sequence[str]) -> list[str]:
    """Returns the policies that an entrant is asked under, in their canonical spelling.

    Raises:
      PolicyError: one that does not exist, or that the model cannot take.
    """
    canonical = []
    for text in policies or [entrant.policy]:
        if text != NO_PICTURE:
            policy = parse_policy(text)
            check_policy(policy, entrant.spec)
            text = str(policy)
        canonical.append(text)
    return list(dict.fromkeys(canonical))


def files_digest(policy: str) -> str | None:
    """Returns a digest of the files that a policy names, such as weights; None where it names none.

    The string alone would not tell an allocator from the same one trained further.
    """
    if policy == NO_PICTURE:
        return None
    named = [pathlib.Path(name) for name in parse_policy(policy).files()]
    found = [file for path in named for file in sorted([path, *path.rglob("*")]) if file.is_file()]
    digest = hashlib.sha256()
    for path in found:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16] if found else None


def trained_policies(vlm: VLM) -> tuple[str, ...]:
    """Returns the policies that a model was trained with, as far as its directory says."""
    run = vlm.facts.get("run")
    weights = run.get("policies") if isinstance(run, Mapping) else None
    if isinstance(weights, Mapping):
        return tuple(str(parse_policy(text)) for text, weight in weights.items() if weight)
    return (str(parse_policy(vlm.trained_policy)),) if vlm.trained_policy else ()


def warn_of_policies(contestant: Contestant, policies: Sequence[str]) -> None:
    """Warns where a model is asked under policies that it was not trained with."""
    trained = contestant.trained
    others = [policy for policy in policies if policy not in (*trained, NO_PICTURE)]
    if trained and others:
        warnings.warn(
            f"{contestant.name} was trained with {' and '.join(trained)}, not with "
            f"{', '.join(others)}: scores under another policy say how it takes the change too.",
            UserWarning,
            stacklevel=2,
        )


def processor_facts(spec: ProcessorSpec) -> dict[str, Any]:
    """Returns what decides of a model's input: sizes, limits, and a hash of its template."""
    template = json.dumps(dataclasses.asdict(spec.template), sort_keys=True)
    names = ("patch_size", "merge_size", "min_pixels", "max_pixels", "resize_rule", "coord_frame")
    facts = {name: getattr(spec, name) for name in (*names, "pad_first", "resample")}
    return facts | {
        "stride": spec.stride,
        "background": list(spec.background),
        "template_sha256": hashlib.sha256(template.encode()).hexdigest()[:16],
    }
