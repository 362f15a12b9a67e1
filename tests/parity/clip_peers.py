"""Models of `transformers` that look at clips, tiny and random, each beside ours out of its files.

Frames are cut into patches by their own image processor, one at a time, and joined to rows of two;
their video processor needs torchvision. Grids, positions and segments are their own.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from peers import smallest_gap, spread
from PIL import Image

from mres_jax import testing
from mres_jax.data.types import Example, Rung
from mres_jax.geometry import View
from mres_jax.inference import load
from mres_jax.protocols import Clip, Item

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pil_processing = pytest.importorskip(
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", reason="needs transformers 5.x"
)

NEW_TOKENS = 16
PATCH, MERGE = 4, 2
STRIDE = PATCH * MERGE
ROOM = (1_024, 384)  # patches and tokens of a pack come in multiples of these
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1_024,
}


class Kind(NamedTuple):
    """How a generation is made."""

    config: str  # classes of transformers
    model: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any] = {}
    mrope_section: tuple[int, int, int] = (2, 3, 3)
    pixels: Mapping[str, Any] = {}  # settings of the image processor
    limits: Callable[[int], Mapping[str, int]] = lambda area: {
        "min_pixels": area,
        "max_pixels": 64 * area,
    }
    says_seconds: bool = False  # their forward takes the seconds of clips
    seed: int = 0  # of the weights: one at which greedy text is not one token again and again


TOWER = {"depth": 3, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64}
KINDS = {
    "Qwen2-VL": Kind(
        "Qwen2VLConfig",
        "Qwen2VLForConditionalGeneration",
        {"depth": 3, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 3, "hidden_size": 64},
    ),
    "Qwen2.5-VL": Kind(
        "Qwen2_5_VLConfig",
        "Qwen2_5_VLForConditionalGeneration",
        TOWER
        | {
            "intermediate_size": 48,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 3,
        },
        says_seconds=True,
    ),
    "Qwen3-VL": Kind(
        "Qwen3VLConfig",
        "Qwen3VLForConditionalGeneration",
        TOWER
        | {
            "intermediate_size": 40,
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0, 2],
        },
        text={"head_dim": 24},
        mrope_section=(6, 3, 3),
        pixels={"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        # of all frames of a clip together
        limits=lambda area: {"min_pixels": 2 * area, "max_pixels": 2_048 * area},
        seed=3,
    ),
}


class Inputs(NamedTuple):
    """One prompt as `transformers` takes it."""

    tokens: Any
    kinds: Any  # 0 text, 1 picture, 2 clip
    visual: dict[str, Any]


class Peer:
    """A model of `transformers`, and ours out of the files it wrote."""

    def __init__(self, kind: Kind, directory):
        self.kind = kind
        vocabulary = testing.tiny_tokenizer()
        ids = {
            f"{name}_token_id": vocabulary.token_id(f"<|{token}|>")
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        }
        rope = {"rope_type": "default", "rope_theta": 5_000.0}
        rope["mrope_section"] = list(kind.mrope_section)
        sizes = {"vocab_size": vocabulary.vocab_size, **TEXT, **kind.text}
        text = {"eos_token_id": vocabulary.token_id("<|im_end|>"), "rope_parameters": rope, **sizes}
        vision = {"patch_size": PATCH, "spatial_merge_size": MERGE, **kind.vision}
        config = getattr(transformers, kind.config)(text_config=text, vision_config=vision, **ids)
        self.model = spread(getattr(transformers, kind.model)(config), kind.seed)
        self.processor = pil_processing.Qwen2VLImageProcessorPil(
            patch_size=PATCH,
            merge_size=MERGE,
            min_pixels=STRIDE**2,
            max_pixels=64 * STRIDE**2,
            **kind.pixels,
        )
        directory.mkdir()
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)
        (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
        (directory / "video_preprocessor_config.json").write_text(
            json.dumps(kind.limits(STRIDE**2))
        )
        rung = Rung(max_patches=ROOM[0], max_tokens=ROOM[1], max_views=32, max_examples=4)
        self.ours = load(directory, ladder=[rung], rows=(4,)).answerer

    def positions(self, example: Example, items: Sequence[Item]) -> np.ndarray:
        """Theirs, `int64 [3 t]`."""
        inputs = self.inputs(example, items)
        visual = {k: v for k, v in inputs.visual.items() if not k.startswith("pixel")}
        places, _ = self.model.model.get_rope_index(
            input_ids=inputs.tokens, mm_token_type_ids=inputs.kinds, **visual
        )
        return places[:, 0].numpy()

    def inputs(self, example: Example, items: Sequence[Item], *, apart: bool = False) -> Inputs:
        """The same prompt; with `apart` each view of a clip is a clip of its own, at its size."""
        spec = self.ours.spec
        video = spec.video
        assert video is not None
        tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
        kinds = (tokens == spec.image_token_id).int() + 2 * (tokens == video.token_id).int()
        pictures = [self._rows([item]) for item in items if not isinstance(item, Clip)]
        clips = [self._rows(item.frames) for item in items if isinstance(item, Clip)]
        if apart:
            clips = [self._rows(resized(items, view)) for view in example.views if view.frames]
        visual = {}
        for name, grid, parts in (
            ("pixel_values", "image_grid_thw", pictures),
            ("pixel_values_videos", "video_grid_thw", clips),
        ):
            if parts:
                visual[name] = torch.from_numpy(np.concatenate([rows for rows, _ in parts]))
                visual[grid] = torch.tensor([grid for _, grid in parts])
        if self.kind.says_seconds and clips and not apart:
            seconds = [2 * item.frame_seconds for item in items if isinstance(item, Clip)]
            visual["second_per_grid_ts"] = torch.tensor(seconds)
        return Inputs(tokens, kinds, visual)

    def _rows(self, frames: Sequence[np.ndarray]) -> tuple[np.ndarray, list[int]]:
        """Rows of two frames, and the grid of all of them; an odd last frame is shown twice."""
        rows, height, width = [], 0, 0
        for frame in frames:
            out = self.processor(images=[Image.fromarray(frame)], return_tensors="np")
            _, height, width = (int(n) for n in out["image_grid_thw"][0])
            rows.append(out["pixel_values"].reshape(-1, 3, 2, PATCH**2))
        rows += rows[-1:] * (len(rows) % 2)
        pairs = [
            np.concatenate([first[:, :, :1], second[:, :, :1]], axis=2)
            for first, second in zip(rows[::2], rows[1::2], strict=True)
        ]
        flat = np.concatenate(pairs).reshape(-1, 3 * 2 * PATCH**2)
        return flat, [len(pairs), height, width]

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        return {
            "input_ids": inputs.tokens,
            "attention_mask": torch.ones_like(inputs.tokens),
            "mm_token_type_ids": inputs.kinds,
            **inputs.visual,
        }

    @torch.no_grad()
    def logits(self, inputs: Inputs, positions: np.ndarray | None = None) -> np.ndarray:
        """Scores at every position, `float32 [t V]`; at other positions than theirs if given."""
        places = {} if positions is None else {"position_ids": torch.from_numpy(positions[:, None])}
        return self.model(**self.arguments(inputs), **places).logits[0].numpy()

    @torch.no_grad()
    def greedy(self, inputs: Inputs, stop_ids: Sequence[int]) -> tuple[list[int], float]:
        """Generated tokens, and the smallest gap between the two best scores of a step."""
        spec = self.ours.spec
        out = self.model.generate(
            **self.arguments(inputs),
            generation_config=transformers.GenerationConfig(
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                eos_token_id=list(stop_ids),
                pad_token_id=spec.pad_token_id,
                suppress_tokens=list(spec.reserved_token_ids),
                output_scores=True,
                return_dict_in_generate=True,
            ),
        )
        new = out.sequences[0, inputs.tokens.shape[1] :]
        return new.tolist(), smallest_gap(torch.stack(out.scores)[:, 0])


def resized(items: Sequence[Item], view: View) -> list[np.ndarray]:
    """The frames of a view as Pillow resizes them."""
    clip, (height, width) = items[view.item], view.size
    assert isinstance(clip, Clip)
    pictures = [Image.fromarray(clip.frames[i]) for i in view.frames]
    return [
        np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        for picture in pictures
    ]
