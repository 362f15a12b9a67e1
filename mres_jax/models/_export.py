"""Models out: complete Hugging Face directories, checkpoints of ours, and one into the other."""

import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax.typing import DTypeLike

from mres_jax.data.spec import ProcessorSpec, VideoSpec
from mres_jax.models._chat_template import chat_template
from mres_jax.models._description import (
    CONFIG,
    GENERATION,
    PREPROCESSOR,
    PROCESSOR,
    TRAITS,
    VIDEO_PREPROCESSOR,
    image_processor,
)
from mres_jax.models._detect import Kind, detect
from mres_jax.models._hub import resolve
from mres_jax.models._loading import LoadedModel, open_model
from mres_jax.models.checkpoint_io import write_checkpoint
from mres_jax.models.files import (
    check_local,
    check_vacant,
    new_directory,
    parse_json,
    write_json,
)
from mres_jax.models.qwen2_vl.processor import CLIP_SHARE
from mres_jax.models.weights import write_weights


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Kind:
    """Turns a Hugging Face directory into a checkpoint of ours, or the other way round.

    Weights keep the type they are stored in, so there and back is bit-exact. Each parameter is read
    and written before the next one (all layers of a stacked one at a time), so the host holds one.

    Args:
      source: directory or hub id; what it is decides the direction.
      target: a new directory.

    Returns:
      What `target` has become, `huggingface` or `orbax`.

    Raises:
      CheckpointError: `source` is no model or damaged, or `target` holds something.
      RunError: the disk is full; nothing is left behind.
    """
    directory = resolve(source)
    kind = detect(directory)
    if kind == "orbax":
        check_local(target)
    check_vacant(epath.Path(target))  # before the time it takes to load
    loaded = open_model(directory)
    if kind == "orbax":
        export_hf(loaded, target)
        return "huggingface"
    save_model(loaded, target)
    return "orbax"


def save_model(loaded: LoadedModel, directory: str | os.PathLike[str]) -> None:
    """Writes a model, without any training state, as a checkpoint of ours.

    Raises:
      CheckpointError: `directory` holds something.
      RunError: the disk is full; nothing is left behind.
    """
    check_vacant(epath.Path(directory))
    write_checkpoint(
        epath.Path(directory),
        {"model": nnx.state(loaded.model, nnx.Param)},
        config=loaded.family.config_to_hf(loaded.config),
        step=loaded.step,
        policy=loaded.policy,
        extra=loaded.extra,
        assets=complete_assets(loaded),
    )


def export_hf(
    loaded: LoadedModel,
    directory: str | os.PathLike[str],
    *,
    dtype: DTypeLike | None = None,
    max_shard_bytes: float = 5e9,
) -> None:
    """Writes a complete Hugging Face directory: weights, configuration, tokenizer, processor.

    Live `transformers` loads a Qwen2-VL out of it. It has no class for NativeRes-LLaVA: there the
    keys are those of the released weights, and this library reads them back.

    Args:
      loaded: the model.
      directory: a new directory, which appears when it is whole.
      dtype: of the weights; None keeps each as it is.
      max_shard_bytes: largest weight file.

    Raises:
      CheckpointError: `directory` holds something, or the model is a variant that its Hugging Face
        family does not have.
      RunError: the disk is full; nothing is left behind.
    """
    loaded.family.check_export(loaded.config)
    state = nnx.state(loaded.model, nnx.Param)
    with new_directory(directory) as scratch:
        for name, content in complete_assets(loaded).items():
            (scratch / name).write_bytes(content)
        write_json(scratch / CONFIG, _config(loaded, _main_dtype(state, dtype)))
        traits = {"policy": loaded.policy, "step": loaded.step, "extra": dict(loaded.extra)}
        if any(traits.values()):
            write_json(scratch / TRAITS, traits)
        table = loaded.family.key_table(loaded.config)
        write_weights(state, table, scratch, max_shard_bytes=max_shard_bytes, dtype=dtype)


def complete_assets(loaded: LoadedModel) -> dict[str, bytes]:
    """The model's own files, and those it lacks made from its processor."""
    spec, assets = loaded.spec, dict(loaded.assets)
    assets["tokenizer.json"] = loaded.tokenizer.to_bytes()
    eos = loaded.tokenizer.decode(spec.eos_token_ids[:1], skip_special=False)
    pad = loaded.tokenizer.decode([spec.pad_token_id], skip_special=False)
    made: dict[str, Any] = {
        GENERATION: {
            "do_sample": False,
            "eos_token_id": list(spec.eos_token_ids),
            "pad_token_id": spec.pad_token_id,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "eos_token": eos,
            "pad_token": pad,
            "model_max_length": loaded.config.text_config.max_position_embeddings,
        },
    }
    for name, content in made.items():
        assets.setdefault(name, _json_bytes(content))
    if not {"chat_template.jinja", "chat_template.json"} & assets.keys():
        is_bare = spec.split is not None
        image, clip = _placeholders(loaded)
        clip = "<video>" if is_bare and clip else clip
        text = chat_template(spec.template, image, clip, is_bare=is_bare)
        assets["chat_template.jinja"] = text.encode()
    is_here = loaded.family.preprocessor_to_hf(spec) is None  # nor with the settings for pictures
    if spec.video is not None and is_here and not {PROCESSOR, PREPROCESSOR} & assets.keys():
        content = _video_preprocessor(spec, spec.video, loaded.family.processor_class)
        assets.setdefault(VIDEO_PREPROCESSOR, _json_bytes(content))
    for name, content in _preprocessors(assets, loaded).items():
        if name not in assets or parse_json(assets[name], name) != content:
            assets[name] = _json_bytes(content)
    return assets


def _placeholders(loaded: LoadedModel) -> tuple[str, str | None]:
    """Texts of a picture's token and of a clip's, if any.

    LLaVA's mark stands for a picture's where the vocabulary has none for it.
    """
    spec, tokenizer = loaded.spec, loaded.tokenizer
    clip = spec.video and tokenizer.decode([spec.video.token_id], skip_special=False)
    if spec.image_token_id not in spec.reserved_token_ids:
        return "<image>", clip
    return tokenizer.decode([spec.image_token_id], skip_special=False) or "<image>", clip


def _config(loaded: LoadedModel, dtype: str) -> dict[str, Any]:
    """The `config.json` that came with the model where it still says the same, else a new one."""
    original = loaded.assets.get(CONFIG)
    content = loaded.family.config_to_hf(loaded.config)
    if original is not None:
        kept = parse_json(original, CONFIG)
        pixels = image_processor("model", loaded.assets)
        with warnings.catch_warnings(action="ignore"):  # said when it was loaded
            if loaded.family.config_from_hf(kept, pixels) == loaded.config:
                content = kept
    name = "dtype" if "dtype" in content else "torch_dtype"
    return {**content, name: dtype}


def _preprocessors(assets: Mapping[str, bytes], loaded: LoadedModel) -> dict[str, dict[str, Any]]:
    """The files that hold pixel limits, or a new one, with the limits of the model.

    Models with squares of their own say so in `config.json`: a file that came with them stays.
    """
    spec = loaded.spec
    made = loaded.family.preprocessor_to_hf(spec)
    if made is not None:
        if {PROCESSOR, PREPROCESSOR} & assets.keys():
            return {}
        whole = loaded.family.processor_to_hf(spec)
        return {PREPROCESSOR: made} | ({} if whole is None else {PROCESSOR: whole})
    held = {
        name: parse_json(assets[name], name) for name in (PROCESSOR, PREPROCESSOR) if name in assets
    }
    nested = held.get(PROCESSOR, {}).get("image_processor")
    out = {}
    if nested is not None:
        out[PROCESSOR] = {**held[PROCESSOR], "image_processor": _preprocessor(nested, spec)}
    if PREPROCESSOR in held or not out:
        out[PREPROCESSOR] = _preprocessor(held.get(PREPROCESSOR, {}), spec)
    if not held:
        out[PREPROCESSOR]["processor_class"] = loaded.family.processor_class
    return out


def _preprocessor(content: dict[str, Any], spec: ProcessorSpec) -> dict[str, Any]:
    """`preprocessor_config.json` with the pixel limits, in the spelling it has or else in both."""
    limits = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels}
    edges = {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}
    ours = {"resize_rule": spec.resize_rule} if spec.resize_rule != "hf" else {}
    if not content:
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_mean": list(spec.mean),
            "image_std": list(spec.std),
            "patch_size": spec.patch_size,
            "temporal_patch_size": spec.temporal_patch_size,
            "merge_size": spec.merge_size,
            **limits,
            "size": edges,
            **ours,
        }
    out = content | ours
    if "size" in content:
        out["size"] = {**(content["size"] or {}), **edges}
    if limits.keys() & content.keys() or "size" not in content:
        out |= limits
    return out


def _video_preprocessor(
    spec: ProcessorSpec, video: VideoSpec, processor_class: str
) -> dict[str, Any]:
    """`video_preprocessor_config.json` of a model that was made here."""
    is_of_clips, token_area = video.limits == "clip", spec.stride**2
    tokens = None  # that a clip, or a frame of it, may have
    if video.total_pixels is not None:
        tokens = round(video.total_pixels / (CLIP_SHARE * token_area))
    elif video.frame_pixels is not None:
        tokens = video.frame_pixels // token_area
    content = {
        "video_processor_type": f"Qwen{3 if is_of_clips else 2}VLVideoProcessor",
        "processor_class": processor_class,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "patch_size": spec.patch_size,
        "temporal_patch_size": spec.temporal_patch_size,
        "merge_size": spec.merge_size,
        "size": {"shortest_edge": video.min_pixels, "longest_edge": video.max_pixels},
        "do_sample_frames": True,
        "fps": video.fps,
        "min_frames": video.min_frames,
        "max_frames": video.max_frames,
        "cap_pixels_per_frame": tokens is not None,
    }
    return content if tokens is None else content | {"max_video_tokens": tokens}


def _main_dtype(state: Any, dtype: DTypeLike | None) -> str:
    """Name of the type that most bytes of the weights have."""
    if dtype is not None:
        return jnp.dtype(dtype).name
    sizes: dict[str, int] = {}
    for leaf in jax.tree.leaves(state):
        sizes[leaf.dtype.name] = sizes.get(leaf.dtype.name, 0) + leaf.nbytes
    return max(sizes, key=sizes.__getitem__)


def _json_bytes(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
