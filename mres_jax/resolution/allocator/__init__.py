"""The learned allocator: how large each frame of a clip is looked at, from a coarse look first.

`network` decides, from what `features` holds; `beta` is its action; `budget` and `operators` turn
scales into sizes and need no jax, like `policy`, which names it all; `store` keeps it on disk.
"""
