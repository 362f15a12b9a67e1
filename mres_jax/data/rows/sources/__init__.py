"""Where rows come from: JSON, prepared shards, parquet, tar files, TFDS."""

from mres_jax.data.rows.sources.json_rows import JsonRows as JsonRows
from mres_jax.data.rows.sources.opening import open_source as open_source
from mres_jax.data.rows.sources.prepared import PreparedRows as PreparedRows
from mres_jax.data.rows.sources.source import Source as Source
