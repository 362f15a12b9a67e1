"""Qwen2 decoder: configuration fields and file keys, as they stand inside larger models."""

from typing import Any

from mres_jax.models.hf_fields import Fields
from mres_jax.models.key_table import Key
from mres_jax.models.qwen2.config import TextConfig

KEYS = (
    Key(hf="model.embed_tokens.weight", ours="text.embed.embedding"),
    Key(hf="model.layers.{i}.input_layernorm.weight", ours="text.layers.input_norm.scale"),
    *(
        row
        for name in "qkv"
        for row in (
            Key(
                hf=f"model.layers.{{i}}.self_attn.{name}_proj.weight",
                ours=f"text.layers.attn.{name}.kernel",
                transform="transpose",
            ),
            Key(
                hf=f"model.layers.{{i}}.self_attn.{name}_proj.bias",
                ours=f"text.layers.attn.{name}.bias",
            ),
        )
    ),
    Key(
        hf="model.layers.{i}.self_attn.o_proj.weight",
        ours="text.layers.attn.o.kernel",
        transform="transpose",
    ),
    Key(hf="model.layers.{i}.post_attention_layernorm.weight", ours="text.layers.post_norm.scale"),
    *(
        Key(
            hf=f"model.layers.{{i}}.mlp.{name}_proj.weight",
            ours=f"text.layers.mlp.{name}.kernel",
            transform="transpose",
        )
        for name in ("gate", "up", "down")
    ),
    Key(hf="model.norm.weight", ours="text.norm.scale"),
    Key(hf="lm_head.weight", ours="text.lm_head.kernel", transform="transpose"),
)
TIED = {"lm_head.weight": "model.embed_tokens.weight"}
IGNORED = (r"rotary_emb\.inv_freq$", r"rotary_pos_emb\.inv_freq$")

MAX_LAYERS = 1_000
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
    theta, section = _rope(fields)
    fields.expect("hidden_act", ("silu",))
    fields.expect("use_sliding_window", (False,))
    head_dim = sizes["hidden_size"] // sizes["num_attention_heads"]
    fields.expect("head_dim", (head_dim,))
    others = [kind for kind in fields.get("layer_types", [], list) if kind != "full_attention"]
    if others:
        fields.problems.append(f"layer_types has {others[0]!r}, have 'full_attention'")
    return TextConfig(
        **sizes,
        num_key_value_heads=fields.size("num_key_value_heads", sizes["num_attention_heads"]),
        rms_norm_eps=fields.require("rms_norm_eps", float),
        rope_theta=theta,
        tie_word_embeddings=tie_word_embeddings,
        max_position_embeddings=fields.size("max_position_embeddings", 32_768),
        mrope_section=section,
    )


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


def _rope(fields: Fields) -> tuple[float, tuple[int, int, int] | None]:
    """Base, and channels of time, row and column: `rope_parameters` (5.x) or `rope_scaling`."""
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
    rope.expect("mrope_interleaved", (False,))
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
    outer = fields.get("tie_word_embeddings", False, bool)
    return outer or text.get("tie_word_embeddings", False, bool)
