"""The models here inside other people's evaluation harnesses.

lmms-eval finds `plugin.manifest` by itself, by an entry point: `lmms-eval eval --model mres_jax`.
Nothing else imports this room, and no file of it imports a harness before one asks for it.
"""

from mres_jax.harness.model import HarnessModel as HarnessModel
from mres_jax.harness.task_files import write_task_files as write_task_files
