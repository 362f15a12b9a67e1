"""Qwen2 decoder: configuration fields and file keys, as they stand inside larger models."""

from collections.abc import Collection
from typing import Any

from mres_jax.models.hf_fields import MAX_LAYERS, Fields
from mres_jax.models.key_table import Key
from mres_jax.models.qwen2.config import TextConfig


def text_keys(prefix: str = "model.") -> tuple[Key, ...]:
    """Keys of a decoder that stands under `prefix`, in the order of files.

    A decoder has biases on q, k and v or norms of their heads; rows of what it lacks are left out.
    """

    def layer(hf: str, ours: str, **options: Any) -> Key:
        return Key(hf=f"{prefix}layers.{{i}}.{hf}", ours=f"text.layers.{ours}", **options)

    def linear(hf: str, ours: str) -> Key:
        return layer(f"{hf}.weight", f"{ours}.kernel", transform="transpose")

    rows = [
        Key(hf=f"{prefix}embed_tokens.weight", ours="text.embed.embedding"),
        layer("input_layernorm.weight", "input_norm.scale"),
    ]
    for name in "qkv":
        rows += [
            linear(f"self_attn.{name}_proj", f"attn.{name}"),
            layer(f"self_attn.{name}_proj.bias", f"attn.{name}.bias"),
        ]
    rows += [layer(f"self_attn.{name}_norm.weight", f"attn.{name}_norm.scale") for name in "qk"]
    rows += [
        linear("self_attn.o_proj", "attn.o"),
        layer("post_attention_layernorm.weight", "post_norm.scale"),
    ]
    rows += [linear(f"mlp.{name}_proj", f"mlp.{name}") for name in ("gate", "up", "down")]
    return (
        *rows,
        Key(hf=f"{prefix}norm.weight", ours="text.norm.scale"),
        Key(hf="lm_head.weight", ours="text.lm_head.kernel", transform="transpose"),
    )


KEYS = text_keys()
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"rotary_emb\.inv_freq$", r"rotary_pos_emb\.inv_freq$")

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


def text_config_from_hf(fields: Fields, *, tie_word_embeddings: bool) -> TextConfig:
    """Reads a decoder's fields, flat or nested, in the naming of transformers 4.x or 5.x."""
    sizes = {name: fields.size(name) for name in SIZES}
    fields.size("num_hidden_layers", most=MAX_LAYERS)
    head_dim = sizes["hidden_size"] // sizes["num_attention_heads"]
    fields.expect("head_dim", (head_dim,))
    theta, section = rope_from_hf(fields, interleaved=(False,))
    return TextConfig(
        **sizes,
        **shared_text_fields(fields, sizes["num_attention_heads"]),
        rope_theta=theta,
        tie_word_embeddings=tie_word_embeddings,
        mrope_section=section,
    )


def shared_text_fields(fields: Fields, num_attention_heads: int) -> dict[str, Any]:
    """What decoders of all generations say alike; notes what none of them can be."""
    fields.expect("hidden_act", ("silu",))
    fields.expect("use_sliding_window", (False,))
    others = [kind for kind in fields.get("layer_types", [], list) if kind != "full_attention"]
    if others:
        fields.problems.append(f"layer_types has {others[0]!r}, have 'full_attention'")
    return {
        "num_key_value_heads": fields.size("num_key_value_heads", num_attention_heads),
        "rms_norm_eps": fields.require("rms_norm_eps", float),
        "max_position_embeddings": fields.size("max_position_embeddings", 32_768),
    }


def text_config_to_hf(config: TextConfig) -> dict[str, Any]:
    """Fields of a flat configuration, as transformers 4.x and 5.x both read them."""
    section = config.mrope_section
    return {
        **{name: getattr(config, name) for name in SIZES},
        "num_key_value_heads": config.num_key_value_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": section and {"type": "mrope", "mrope_section": list(section)},
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "use_cache": True,
    }


def rope_from_hf(
    fields: Fields, *, interleaved: Collection[bool]
) -> tuple[float, tuple[int, int, int] | None]:
    """Base, and channels of time, row and column: `rope_parameters` (5.x) or `rope_scaling`.

    `interleaved` are the values that `mrope_interleaved` may have.
    """
    old, new = fields.get("rope_scaling", {}, dict), fields.get("rope_parameters", {}, dict)
    rope = Fields({**old, **new}, f"{fields.where}: {'rope_parameters' if new else 'rope_scaling'}")
    flat_theta = fields.get("rope_theta", None, float)
    theta = flat_theta if "rope_theta" not in rope.content else rope.require("rope_theta", float)
    if theta is None:
        theta = fields.require("rope_theta", float)
    for name in ("type", "rope_type"):
        rope.expect(name, ("default", "mrope"))
    section = rope.get("mrope_section", None, list)
    if section is None and "mrope" in (rope.content.get("type"), rope.content.get("rope_type")):
        rope.problems.append("type is mrope, but there is no mrope_section")
    rope.expect("mrope_interleaved", interleaved)
    rope.expect("partial_rotary_factor", (1.0,))
    rope.expect("factor", (1.0,))
    rope.close()
    return float(theta), None if section is None else _three(rope, section)


def _three(rope: Fields, section: list[Any]) -> tuple[int, int, int]:
    if len(section) != 3 or not all(type(n) is int and n >= 0 for n in section):
        rope.problems.append(f"mrope_section is {section!r}, not three channel counts")
        rope.close()
    return section[0], section[1], section[2]


def nested_text_fields(fields: Fields) -> Fields:
    """Where the decoder's fields stand: in `text_config` (4.52 on), else at the top.

    Some releases wrote both. The nested ones count; a different value at the top is a problem.
    """
    nested = fields.get("text_config", {}, dict)
    if not nested:
        return fields
    inner = fields.child("text_config")
    names = [*SIZES, "num_key_value_heads", "rms_norm_eps", "rope_theta", "max_position_embeddings"]
    for name in names:
        outside = fields.get(name, None)
        if outside is not None and nested.get(name, outside) != outside:
            fields.problems.append(
                f"{name} is {outside!r} at the top and {nested[name]!r} in text_config"
            )
    fields.ignore((*nested, "rope_scaling", "hidden_act", "use_sliding_window", "layer_types"))
    return inner


def is_tied(fields: Fields, text: Fields) -> bool:
    """Whether head and embeddings are one: said at the top (5.x, hub files) or nested (4.5x)."""
    return any([part.get("tie_word_embeddings", False, bool) for part in (fields, text)])
