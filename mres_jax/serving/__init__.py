"""An OpenAI-compatible chat endpoint: before a model in this process, or before another server."""

from mres_jax.serving.app import PolicyRule as PolicyRule
from mres_jax.serving.limits import Limits as Limits
from mres_jax.serving.local import LocalBackend as LocalBackend
from mres_jax.serving.run import serve as serve
from mres_jax.serving.upstream import UpstreamBackend as UpstreamBackend
