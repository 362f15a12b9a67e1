"""Models of `transformers` with tiny random weights, each beside ours out of its files."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from mres_jax import testing
from mres_jax.data.types import Example, Rung
from mres_jax.inference import load
from mres_jax.inference.answer import LocalAnswerer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pil_processing = pytest.importorskip(
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", reason="needs transformers 5.x"
)
modeling = pytest.importorskip("transformers.models.qwen2_vl.modeling_qwen2_vl")

NEW_TOKENS = 16
ROOM = (1_584, 512)  # patches and tokens of a pack
ROWS = (4,)  # of the cache


class Shape(NamedTuple):
    """Sizes of a tiny model."""

    patch_size: int
    merge_size: int
    vision: dict[str, Any]
    text: dict[str, Any]
    mrope_section: tuple[int, int, int]
    tied: bool
    seed: int = 0  # of the weights: one at which greedy text is not one token again and again


# No number stands at its default: a field that is not read is a difference.
QWEN2_SHAPES = {
    "grouped heads": Shape(
        patch_size=4,
        merge_size=2,
        vision={"depth": 3, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 3},
        text={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1_024,
            "rms_norm_eps": 1e-3,
        },
        mrope_section=(2, 3, 3),
        tied=False,
    ),
    "tied embeddings": Shape(
        patch_size=6,
        merge_size=3,
        vision={"depth": 2, "embed_dim": 24, "num_heads": 3, "mlp_ratio": 2},
        text={
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1_024,
            "rms_norm_eps": 1e-5,
        },
        mrope_section=(4, 4, 4),
        tied=True,
    ),
}
WINDOWED_SHAPES = {
    "windows of two": Shape(
        patch_size=4,
        merge_size=2,
        vision={
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1, 3],
        },
        text=QWEN2_SHAPES["grouped heads"].text,
        mrope_section=(2, 3, 3),
        tied=False,
    ),
    "windows of three, and pixels to spare": Shape(
        patch_size=6,
        merge_size=3,
        vision={
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 36,
            "num_heads": 3,
            "window_size": 66,
            "fullatt_block_indexes": [0],
        },
        text=QWEN2_SHAPES["tied embeddings"].text,
        mrope_section=(4, 4, 4),
        tied=True,
    ),
}
DEEPSTACK_SHAPES = {
    "two layers in DeepStack": Shape(
        patch_size=4,
        merge_size=2,
        vision={
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0, 2],
        },
        text=QWEN2_SHAPES["grouped heads"].text | {"head_dim": 24},
        mrope_section=(6, 3, 3),
        tied=False,
        seed=1,
    ),
    "one layer in DeepStack": Shape(
        patch_size=6,
        merge_size=3,
        vision={
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 36,
            "num_heads": 3,
            "hidden_act": "gelu",
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [1],
        },
        text=QWEN2_SHAPES["tied embeddings"].text | {"head_dim": 16},
        mrope_section=(4, 2, 2),
        tied=True,
    ),
}
TRUE_WIDTH = Shape(  # of the released towers; their decoders are none
    patch_size=14,
    merge_size=2,
    vision={"depth": 2, "embed_dim": 1_280, "num_heads": 16, "mlp_ratio": 4},
    text={
        "hidden_size": 1_536,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1_024,
        "rms_norm_eps": 1e-6,
    },
    mrope_section=(16, 24, 24),
    tied=True,
)


TRUE_WIDTHS = {
    "Qwen2-VL": TRUE_WIDTH,
    "Qwen2.5-VL": TRUE_WIDTH._replace(
        vision={
            "depth": 3,
            "hidden_size": 1_280,
            "intermediate_size": 3_420,
            "num_heads": 16,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        }
    ),
    "Qwen3-VL": TRUE_WIDTH._replace(
        patch_size=16,
        vision={
            "depth": 2,
            "hidden_size": 1_152,
            "intermediate_size": 4_304,
            "num_heads": 16,
            "num_position_embeddings": 2_304,
            "deepstack_visual_indexes": [0],
        },
        text=TRUE_WIDTH.text | {"head_dim": 128},
        mrope_section=(24, 20, 20),
    ),
}


class Inputs(NamedTuple):
    """One prompt as `transformers` takes it."""

    tokens: Any  # int64 [1 t]
    pixels: Any  # float32 [p r], both frames, or None
    grids: Any  # int64 [n 3], or None


class Peer:
    """A model of `transformers`, and ours out of the files it wrote."""

    PIXELS: Mapping[str, Any] = {}  # settings of the image processor
    model: Any  # what scores and generates

    def __init__(self, shape: Shape, directory: pathlib.Path):
        vocabulary = testing.tiny_tokenizer()
        self.shape, self.vocabulary = shape, vocabulary
        stride = shape.patch_size * shape.merge_size
        self.processor = pil_processing.Qwen2VLImageProcessorPil(
            patch_size=shape.patch_size,
            merge_size=shape.merge_size,
            min_pixels=stride**2,
            max_pixels=256 * stride**2,
            **self.PIXELS,
        )
        self.make()
        directory.mkdir()
        self.write(directory)
        self.processor.save_pretrained(directory)
        (directory / "tokenizer.json").write_bytes(vocabulary.to_bytes())
        rung = Rung(max_patches=ROOM[0], max_tokens=ROOM[1], max_views=16, max_examples=4)
        self.ours: LocalAnswerer = load(directory, ladder=[rung], rows=ROWS).answerer

    def make(self) -> None:
        """Builds the parts with random weights."""
        raise NotImplementedError

    def write(self, directory: pathlib.Path) -> None:
        """Writes weights and config.json."""
        raise NotImplementedError

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        """What `model` is called with."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        return self.shape.patch_size * self.shape.merge_size

    def vision_config(self, hidden_size: int) -> dict[str, Any]:
        """Fields of a tower that ends at `hidden_size` channels."""
        return {
            "hidden_size": hidden_size,
            "patch_size": self.shape.patch_size,
            "spatial_merge_size": self.shape.merge_size,
            **self.shape.vision,
        }

    def text_config(self, **rope: Any) -> dict[str, Any]:
        return {
            "vocab_size": self.vocabulary.vocab_size,
            "eos_token_id": self.vocabulary.token_id("<|im_end|>"),
            "rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0, **rope},
            **self.shape.text,
        }

    def inputs(self, example: Example, images: Sequence[np.ndarray]) -> Inputs:
        """The same prompt, its pictures through their processor."""
        tokens = torch.from_numpy(example.tokens[None].astype(np.int64))
        if not images:
            return Inputs(tokens, None, None)
        out = self.processor(images=[Image.fromarray(i) for i in images], return_tensors="pt")
        return Inputs(tokens, out["pixel_values"], out["image_grid_thw"])

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> np.ndarray:
        """Scores at every position, `float32 [t V]`."""
        return self.model(**self.arguments(inputs)).logits[0].numpy()

    @torch.no_grad()
    def greedy(self, inputs: Inputs, stop_ids: Sequence[int]) -> tuple[list[int], float]:
        """Generated tokens, and the smallest gap between the two best scores of a step."""
        spec, arguments = self.ours.spec, self.arguments(inputs)
        out = self.model.generate(
            **arguments,
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
        new = out.sequences[0, inputs.tokens.shape[1] if "input_ids" in arguments else 0 :]
        return new.tolist(), smallest_gap(torch.stack(out.scores)[:, 0])

    @torch.no_grad()
    def greedy_without_cache(self, inputs: Inputs) -> tuple[list[int], float]:
        """The same from a whole forward pass for each token, without any stop."""
        tokens, rows = inputs.tokens, []
        for _ in range(NEW_TOKENS):
            row = self.model(**self.arguments(inputs._replace(tokens=tokens))).logits[0, -1]
            row[list(self.ours.spec.reserved_token_ids)] = -math.inf
            rows.append(row)
            tokens = torch.cat([tokens, row.argmax()[None, None]], dim=1)
        return tokens[0, -NEW_TOKENS:].tolist(), smallest_gap(torch.stack(rows))


def smallest_gap(rows: Any) -> float:
    """Of the two best scores in each row."""
    best = rows.topk(2).values
    return float((best[:, 0] - best[:, 1]).min())


class QwenVLPeer(Peer):
    """A class of `transformers` that takes pictures and words."""

    CONFIG: str
    MODEL: str

    def make(self) -> None:
        token_id = self.vocabulary.token_id
        config = getattr(transformers, self.CONFIG)(
            text_config=self.text_config(mrope_section=list(self.shape.mrope_section)),
            vision_config=self.vision_config(self.shape.text["hidden_size"]),
            image_token_id=token_id("<|image_pad|>"),
            video_token_id=token_id("<|video_pad|>"),
            vision_start_token_id=token_id("<|vision_start|>"),
            vision_end_token_id=token_id("<|vision_end|>"),
            tie_word_embeddings=self.shape.tied,
        )
        self.model = spread(getattr(transformers, self.MODEL)(config), self.shape.seed)

    def write(self, directory: pathlib.Path) -> None:
        self.model.save_pretrained(directory)

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        visual = inputs.tokens == self.model.config.image_token_id
        out = {
            "input_ids": inputs.tokens,
            "attention_mask": torch.ones_like(inputs.tokens),
            "mm_token_type_ids": visual.int(),
        }
        if inputs.pixels is not None:
            out |= {"pixel_values": inputs.pixels, "image_grid_thw": inputs.grids}
        return out

    @torch.no_grad()
    def visual_tokens(self, inputs: Inputs) -> np.ndarray:
        """`float32 [v d]`, those of DeepStack behind each other."""
        out = self.model.model.visual(inputs.pixels, grid_thw=inputs.grids)
        deepstack = getattr(out, "deepstack_features", None) or []
        return torch.cat([out.pooler_output, *deepstack]).numpy()


class Qwen2VLPeer(QwenVLPeer):
    """Qwen2-VL."""

    CONFIG, MODEL = "Qwen2VLConfig", "Qwen2VLForConditionalGeneration"


class Qwen2_5VLPeer(QwenVLPeer):
    """Qwen2.5-VL."""

    CONFIG, MODEL = "Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration"

    def vision_config(self, hidden_size: int) -> dict[str, Any]:
        config = super().vision_config(hidden_size) | self.shape.vision
        return config | {"out_hidden_size": hidden_size}


class Qwen3VLPeer(QwenVLPeer):
    """Qwen3-VL; its positions are interleaved whether it is said or not."""

    CONFIG, MODEL = "Qwen3VLConfig", "Qwen3VLForConditionalGeneration"
    PIXELS: Mapping[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

    def vision_config(self, hidden_size: int) -> dict[str, Any]:
        config = super().vision_config(hidden_size) | self.shape.vision
        return config | {"out_hidden_size": hidden_size}


class NativeResLlavaPeer(Peer):
    """Qwen2-VL's tower, an MLP and `Qwen2ForCausalLM`, joined as the released code joins them."""

    def make(self) -> None:
        mm_hidden_size, hidden_size = 40, self.shape.text["hidden_size"]
        config = modeling.Qwen2VLVisionConfig(**self.vision_config(mm_hidden_size))
        self.tower = spread(modeling.Qwen2VisionTransformerPretrainedModel(config), seed=1)
        self.projector = spread(
            torch.nn.Sequential(
                torch.nn.Linear(mm_hidden_size, hidden_size),
                torch.nn.GELU(),
                torch.nn.Linear(hidden_size, hidden_size),
            ),
            seed=2,
        )
        text = transformers.Qwen2Config(
            **self.text_config(), tie_word_embeddings=self.shape.tied, use_sliding_window=False
        )
        self.model = spread(transformers.Qwen2ForCausalLM(text), seed=3)

    def write(self, directory: pathlib.Path) -> None:
        weights = dict(self.model.state_dict())
        if self.shape.tied:
            del weights["lm_head.weight"]
        for prefix, part in (
            ("model.vision_tower.vision_tower.", self.tower),
            ("model.mm_projector.", self.projector),
        ):
            weights |= {prefix + name: tensor for name, tensor in part.state_dict().items()}
        safetensors_torch.save_file(weights, directory / "model.safetensors")
        config = self.model.config.to_dict() | {
            "architectures": ["LlavaQwenForCausalLM"],
            "model_type": "llava_qwen",
            "mm_projector_type": "mlp2x_gelu",
            "mm_hidden_size": self.tower.config.hidden_size,
            "mm_vision_tower": "checkpoints/qwen2vit-665m-patch14-native",
            "vision_config": self.tower.config.to_dict(),
            "image_token_id": self.vocabulary.token_id("<|image_pad|>"),
        }
        (directory / "config.json").write_text(json.dumps(config))

    def arguments(self, inputs: Inputs) -> dict[str, Any]:
        embedded = self.model.get_input_embeddings()(inputs.tokens)
        if inputs.pixels is not None:
            visual = self.projector(self.tower(inputs.pixels, grid_thw=inputs.grids).pooler_output)
            places = inputs.tokens[..., None] == self.vocabulary.token_id("<|image_pad|>")
            embedded = embedded.masked_scatter(places.expand_as(embedded), visual)
        return {"inputs_embeds": embedded, "attention_mask": torch.ones_like(inputs.tokens)}


def spread(model: Any, seed: int = 0) -> Any:
    """Draws all parameters so that what a model says depends on all of them and on its pictures."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim > 1:
                parameter.copy_(1.5 * noise / math.sqrt(parameter[0].numel()))
            else:  # scales about one, biases about zero
                parameter.copy_(0.3 * noise + float(name.endswith("weight")))
    return model.eval()


class Family(NamedTuple):
    """How a family is made, and the tiny sizes it is tried in."""

    make: Callable[[Shape, pathlib.Path], Peer]
    shapes: Mapping[str, Shape]


FAMILIES = {
    "Qwen2-VL": Family(Qwen2VLPeer, QWEN2_SHAPES),
    "Qwen2.5-VL": Family(Qwen2_5VLPeer, WINDOWED_SHAPES),
    "Qwen3-VL": Family(Qwen3VLPeer, DEEPSTACK_SHAPES),
    "NativeRes-LLaVA": Family(NativeResLlavaPeer, QWEN2_SHAPES),
}
