"""The end of a run that was asked for by a signal, which its processes agree on."""

from mres_jax import interrupts
from mres_jax.training import hosts


class Stop(interrupts.Stop):
    """SIGTERM and Ctrl-C remembered until the step is done; see `mres_jax.interrupts.Stop`.

    Where a run has several processes jax listens instead, and `agree` says when all are to stop.
    """

    def __init__(self):
        signals = () if hosts.are_several() else interrupts.SIGNALS
        super().__init__("saving after this step", signals)

    def agree(self, step: int) -> None:
        """Asks, after every step, whether one of several processes was told to end."""
        if hosts.is_preempted(step):
            self.asked = "SIGTERM to one of the processes"
