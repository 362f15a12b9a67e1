"""What goes into a training run: examples by number, planned into packs before any pixel is read.

`documents` and `rows` are the two kinds of data; `epochs` mixes them and plans an epoch; `feed`
reads the packs ahead, in worker processes where a run asks for them.
"""
