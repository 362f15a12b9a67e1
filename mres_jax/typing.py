"""Axis letters of every shape annotation in the library; `docs/axes.md` is the same table.

Bound per call: the same letter is the same size. A leading `*b` is any number of axes.

| letter | axis | letter | axis |
|---|---|---|---|
| `i` | items | `h` | query heads |
| `p` | packed patches | `g` | key/value heads |
| `v` | packed visual tokens | `k` | head width |
| `t` | sequence positions of the decoder | `f` | feed-forward width |
| `d` | vision width | `c` | colour channels |
| `e` | text width | `s` | segments |
| `n` | views of a pack | `r` | values of one patch row |
| `m` | rows of a KV cache | `q` | queries |
"""

from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt8

__all__ = ["Array", "Bool", "Float", "Float32", "Int", "Int32", "UInt8"]
