"""Run files: frozen dataclasses, a plain Python file per run, dotted overrides, JSON.

Standard library only: nothing here imports numpy or jax.
"""

from mres_jax.config._allocator import (
    AllocatorRun as AllocatorRun,
    BackboneTraining as BackboneTraining,
    Questions as Questions,
)
from mres_jax.config._codec import diff as diff, from_json as from_json, to_json as to_json
from mres_jax.config._data import Documents as Documents, Rows as Rows
from mres_jax.config._eval_run import (
    BENCHMARKS as BENCHMARKS,
    Benchmark as Benchmark,
    EvalRun as EvalRun,
    Generated as Generated,
    QuestionFile as QuestionFile,
)
from mres_jax.config._evaluate import Evaluate as Evaluate
from mres_jax.config._files import load_eval_run as load_eval_run, load_run as load_run
from mres_jax.config._mesh import MeshConfig as MeshConfig
from mres_jax.config._overrides import apply_overrides as apply_overrides
from mres_jax.config._parts import LoRA as LoRA
from mres_jax.config._run import (
    CheckpointConfig as CheckpointConfig,
    OptimizerConfig as OptimizerConfig,
    Run as Run,
    Schedule as Schedule,
)
from mres_jax.config._server import (
    ServerAddress as ServerAddress,
    ServerConfig as ServerConfig,
    is_server as is_server,
    parse_address as parse_address,
)
from mres_jax.config._values import did_you_mean as did_you_mean
