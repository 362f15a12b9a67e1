"""Tiny models and contract suites, shipped for tests: ours and users'."""

from mres_jax.testing.answers import said as said
from mres_jax.testing.chat_server import (
    ChatServer as ChatServer,
    Received as Received,
    Reply as Reply,
    serve_script as serve_script,
)
from mres_jax.testing.runs import tiny_run as tiny_run
from mres_jax.testing.tiny import (
    TinyModel as TinyModel,
    fill as fill,
    tiny_clip as tiny_clip,
    tiny_config as tiny_config,
    tiny_nativeres_llava as tiny_nativeres_llava,
    tiny_qwen2_5_vl as tiny_qwen2_5_vl,
    tiny_qwen2_vl as tiny_qwen2_vl,
    tiny_qwen3_vl as tiny_qwen3_vl,
    tiny_spec as tiny_spec,
    tiny_template as tiny_template,
    tiny_text_config as tiny_text_config,
    tiny_tokenizer as tiny_tokenizer,
    tiny_vision_config as tiny_vision_config,
)
from mres_jax.testing.tiny_llava import (
    tiny_clip_config as tiny_clip_config,
    tiny_dual_config as tiny_dual_config,
    tiny_llama_config as tiny_llama_config,
    tiny_llava as tiny_llava,
    tiny_llava_hr as tiny_llava_hr,
    tiny_llava_next as tiny_llava_next,
)
from mres_jax.testing.tiny_siglip import (
    tiny_naflex as tiny_naflex,
    tiny_siglip_config as tiny_siglip_config,
    tiny_smolvlm as tiny_smolvlm,
    tiny_smolvlm_tokenizer as tiny_smolvlm_tokenizer,
)
