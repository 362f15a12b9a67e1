"""What a model directory of either kind says beside its weights."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import FILE as TOKENIZER, Tokenizer
from mres_jax.errors import CheckpointError
from mres_jax.models._detect import Kind, checkpoint_directory, detect
from mres_jax.models._families import Family, family_in
from mres_jax.models._hub import resolve
from mres_jax.models.checkpoint_io import read_assets
from mres_jax.models.files import check_local, parse_json, read_json, read_small
from mres_jax.models.hf_fields import Fields
from mres_jax.models.manifest import read_manifest

CONFIG = "config.json"
GENERATION = "generation_config.json"
# Files of a model directory that are not weights; carried along unread unless they are needed.
ASSETS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION,
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
PREPROCESSOR = "preprocessor_config.json"
VIDEO_PREPROCESSOR = "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"  # transformers 5 nests the image processor in it
TRAITS = "mres.json"  # what config.json has no field for: policy, step, notes


class Processor(NamedTuple):
    """What the host side needs of a model."""

    spec: ProcessorSpec
    tokenizer: Tokenizer


class Description(NamedTuple):
    """A model but for its weights; the names are those of `LoadedModel`."""

    config: Any
    spec: ProcessorSpec
    tokenizer: Tokenizer
    family: Family
    policy: str | None
    step: int
    extra: Mapping[str, Any]
    assets: Mapping[str, bytes]


def load_processor(model: str | os.PathLike[str] | None) -> Processor:
    """Loads what the host side needs of a model, without its weights.

    Args:
      model: as for `load_model`; of the hub its weights are not fetched.

    Raises:
      CheckpointError: no such model, a wrong directory, or one without a tokenizer.
    """
    *_, description = describe(resolve(model, weights=False))
    return Processor(description.spec, description.tokenizer)


def load_config(model: str | os.PathLike[str] | None) -> Any:
    """Loads the configuration of a model; neither weights nor a tokenizer have to be there.

    Args:
      model: as for `load_model`; of the hub its weights are not fetched.

    Raises:
      CheckpointError: no such model, a wrong directory, or a `config.json` that cannot be used.
    """
    directory = resolve(model, weights=False)
    if detect(directory) == "orbax":
        place = checkpoint_directory(directory)
        content = read_manifest(place).config
        return family_in(content, place).config_from_hf(content)
    check_local(directory)
    return _read_huggingface(pathlib.Path(directory)).config


def describe(directory: str | os.PathLike[str]) -> tuple[Kind, Any, Description]:
    """Returns the kind of a directory, where its weights lie, and all the rest.

    Raises:
      CheckpointError: a wrong directory, or files of it that cannot be used.
    """
    if detect(directory) == "huggingface":
        check_local(directory)
        place = pathlib.Path(directory)
        return "huggingface", place, _describe_huggingface(place)
    place = checkpoint_directory(directory)
    return "orbax", place, _describe_orbax(place)


def _describe_huggingface(directory: pathlib.Path) -> Description:
    family, config, assets, preprocessor = _read_huggingface(directory)
    said = Fields(_json(directory, assets, TRAITS), f"{directory}/{TRAITS}")
    assets.pop(TRAITS, None)
    traits = {
        "policy": said.get("policy", None, str),
        "step": said.get("step", 0, int),
        "extra": said.get("extra", {}, dict),
    }
    return _description(directory, family, config, assets, preprocessor, **traits)


class _Files(NamedTuple):
    """Of a Hugging Face directory, weights left out."""

    family: Family
    config: Any
    assets: dict[str, bytes]
    preprocessor: Mapping[str, Any]


def _read_huggingface(directory: pathlib.Path) -> _Files:
    content = read_json(directory / CONFIG)
    family = family_in(content, directory / CONFIG)
    paths = {name: directory / name for name in (*ASSETS, CONFIG, TRAITS)}
    assets = {name: read_small(path) for name, path in paths.items() if path.is_file()}
    preprocessor = image_processor(directory, assets) or {}  # none, and yet not made here
    return _Files(family, family.config_from_hf(content, preprocessor), assets, preprocessor)


def _describe_orbax(directory: Any) -> Description:
    manifest, assets = read_manifest(directory), read_assets(directory)
    family = family_in(manifest.config, directory)
    config = family.config_from_hf(manifest.config)  # has what the image processor sets
    traits = {"policy": manifest.policy, "step": manifest.step, "extra": manifest.extra}
    preprocessor = image_processor(directory, assets)
    return _description(directory, family, config, assets, preprocessor, **traits)


def _description(
    directory: Any,
    family: Family,
    config: Any,
    assets: Mapping[str, bytes],
    preprocessor: Mapping[str, Any] | None,
    **traits: Any,
) -> Description:
    """Adds what follows from the rest: tokenizer and processor."""
    if TOKENIZER not in assets:
        raise CheckpointError(
            f"{directory}: no {TOKENIZER}; copy it from the model that the weights came from."
        )
    if video := video_processor(directory, assets):
        preprocessor = {**(preprocessor or {}), "video_processor": video}
    tokenizer = Tokenizer.parse(assets[TOKENIZER], f"{directory}/{TOKENIZER}")
    spec = family.make_spec(config, tokenizer.token_id, preprocessor=preprocessor)
    ends = end_token_ids(directory, assets, config.text_config.vocab_size)
    ends = tuple(dict.fromkeys([*spec.eos_token_ids, *ends]))
    spec = dataclasses.replace(spec, eos_token_ids=ends)
    return Description(
        config=config, spec=spec, tokenizer=tokenizer, family=family, assets=assets, **traits
    )


def end_token_ids(directory: Any, assets: Mapping[str, bytes], vocab_size: int) -> list[int]:
    """Tokens at which `transformers` ends an answer, beside the one that closes a turn.

    They are those of `generation_config.json`, where there is none of `config.json`.

    Raises:
      CheckpointError: what is no id of the decoder's rows.
    """
    file = GENERATION if GENERATION in assets else CONFIG
    content = _json(directory, assets, file)
    found = content.get("eos_token_id")
    if found is None and file == CONFIG:
        found = (content.get("text_config") or {}).get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise CheckpointError(
                f"{directory}/{file}: eos_token_id has {token!r}, not an id from 0 to "
                f"{vocab_size - 1:,}; take the one at which the model ends its answers."
            )
    return ids


def image_processor(directory: Any, assets: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Settings of the image processor, where transformers looks for them; None where nowhere."""
    return _settings(directory, assets, "image_processor", PREPROCESSOR)


def video_processor(directory: Any, assets: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Settings of the video processor, likewise."""
    return _settings(directory, assets, "video_processor", VIDEO_PREPROCESSOR)


def _settings(
    directory: Any, assets: Mapping[str, bytes], name: str, file: str
) -> dict[str, Any] | None:
    processor = Fields(_json(directory, assets, PROCESSOR), f"{directory}/{PROCESSOR}")
    nested = processor.get(name, None, dict)
    if nested is None and file in assets:
        return _json(directory, assets, file)
    return nested


def _json(directory: Any, assets: Mapping[str, bytes], name: str) -> dict[str, Any]:
    return parse_json(assets[name], f"{directory}/{name}") if name in assets else {}
