"""The command `mres`: arguments in, tables or one JSON object out. The work is done in the rooms.

`main` imports nothing heavy; each command imports what it needs when it runs.
"""

from mres_jax.cli._main import main as main, program as program
