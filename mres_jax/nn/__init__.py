"""Blocks that models are made of. They take sizes, never a config."""

from mres_jax.nn.attention import (
    DecoderAttention as DecoderAttention,
    EncoderAttention as EncoderAttention,
    VisionAttention as VisionAttention,
)
from mres_jax.nn.cache import KVCache as KVCache, LayerIndex as LayerIndex
from mres_jax.nn.canvas import (
    Cells as Cells,
    DepthwiseConv as DepthwiseConv,
    Map as Map,
    Mask as Mask,
    Resize as Resize,
    canvas_mask as canvas_mask,
)
from mres_jax.nn.class_rows import ClassRows as ClassRows
from mres_jax.nn.embed import Embed as Embed
from mres_jax.nn.encoder_block import EncoderBlock as EncoderBlock
from mres_jax.nn.int8 import (
    Int8Linear as Int8Linear,
    to_int8 as to_int8,
    use_int8 as use_int8,
)
from mres_jax.nn.lora import (
    LORA_FACTORS as LORA_FACTORS,
    LoRALinear as LoRALinear,
    LoRAParam as LoRAParam,
    add_lora as add_lora,
    fold_lora as fold_lora,
    linear_layers as linear_layers,
    merge_kernel as merge_kernel,
    merge_lora as merge_lora,
    unfold_lora as unfold_lora,
)
from mres_jax.nn.merger import AveragePooling as AveragePooling, PatchMerger as PatchMerger
from mres_jax.nn.mlp import MLP as MLP, GatedMLP as GatedMLP
from mres_jax.nn.mr_adapter import (
    MRAdapter as MRAdapter,
    MRAdapterOptions as MRAdapterOptions,
)
from mres_jax.nn.norms import LayerNorm as LayerNorm, RMSNorm as RMSNorm
from mres_jax.nn.patch_embed import PatchEmbed as PatchEmbed
from mres_jax.nn.position_table import (
    PositionTable as PositionTable,
    read_positions as read_positions,
)
from mres_jax.nn.projector import Projector as Projector
from mres_jax.nn.reduce import (
    Reduced as Reduced,
    keep_best as keep_best,
    random_drop as random_drop,
    received_attention as received_attention,
    tome as tome,
    tome_rounds as tome_rounds,
    visionzip as visionzip,
)
from mres_jax.nn.rotary import (
    Rotary as Rotary,
    apply_rotary as apply_rotary,
    decoder_rotary as decoder_rotary,
    vision_rotary as vision_rotary,
)
from mres_jax.nn.sharding import (
    any_pack as any_pack,
    each_pack as each_pack,
    gather as gather,
    gather_once as gather_once,
    gather_program as gather_program,
    num_ranks as num_ranks,
    on_ranks as on_ranks,
    pack_sharding as pack_sharding,
    param_spec as param_spec,
    state_shardings as state_shardings,
)
from mres_jax.nn.stack import (
    Remat as Remat,
    scan_layers as scan_layers,
    slice_layers as slice_layers,
    stack_layers as stack_layers,
    unstack_layers as unstack_layers,
)
from mres_jax.nn.vision_block import VisionBlock as VisionBlock
