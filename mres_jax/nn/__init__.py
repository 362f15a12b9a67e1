"""Blocks that models are made of. They take sizes, never a config."""

from mres_jax.nn.attention import DecoderAttention as DecoderAttention
from mres_jax.nn.attention import VisionAttention as VisionAttention
from mres_jax.nn.cache import KVCache as KVCache
from mres_jax.nn.merger import AveragePooling as AveragePooling
from mres_jax.nn.merger import PatchMerger as PatchMerger
from mres_jax.nn.mlp import GatedMLP as GatedMLP
from mres_jax.nn.mlp import MLP as MLP
from mres_jax.nn.norms import LayerNorm as LayerNorm
from mres_jax.nn.norms import RMSNorm as RMSNorm
from mres_jax.nn.patch_embed import PatchEmbed as PatchEmbed
from mres_jax.nn.projector import Projector as Projector
from mres_jax.nn.rotary import Rotary as Rotary
from mres_jax.nn.rotary import apply_rotary as apply_rotary
from mres_jax.nn.rotary import decoder_rotary as decoder_rotary
from mres_jax.nn.rotary import vision_rotary as vision_rotary
from mres_jax.nn.stack import Remat as Remat
from mres_jax.nn.stack import scan_layers as scan_layers
from mres_jax.nn.stack import stack_layers as stack_layers
