"""RC-Bench: sets of questions balanced over 35 cells of size, their scores, and maps of them.

The official pictures were never released. What is made here is made of the user's pictures or of
generated documents, and its card says which; official data can be read where a user has it.
"""

from mres_jax.evaluation.rc_bench.cuts import Cuts as Cuts
from mres_jax.evaluation.rc_bench.folders import RCSet as RCSet, open_set as open_set
from mres_jax.evaluation.rc_bench.items import Item as Item
from mres_jax.evaluation.rc_bench.scores import score_item as score_item
