"""`Job`: everything that one run trains, built from a config and checked."""

import dataclasses
from collections.abc import Callable

import jax

from fa_jax.core import Loss, Rule, Task
from fa_jax.loggers.logger import OpenLogger
from fa_jax.network import Network
from fa_jax.training.loop import Learner, Numbers, TrainingOptions


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run trains, and how."""

    task: Task
    learner: Learner
    make_learner: Callable[[Numbers], Learner]
    """The learner with other values of some options, which may be traced."""
    groups: tuple[tuple[int, ...], ...]
    """The seeds, in groups that are trained at once."""
    evaluations: tuple[int, ...]
    """The steps after which the network is evaluated, ascending from 0 to the last."""
    devices: tuple[jax.Device, ...]
    """The devices that share a group of seeds."""
    batch_devices: int
    """The number of devices that train one seed together."""
    checkpoint: bool
    """Whether final params and feedback are saved."""
    checkpoint_every: float | None
    """Seconds between checkpoints for resuming; None: none are written."""
    open_logger: OpenLogger | None
    """Opens the experiment tracker to which the run is sent; None: no tracker."""

    @property
    def rule(self) -> Rule:
        """The learning rule."""
        return self.learner.rule

    @property
    def network(self) -> Network:
        """The network that predicts."""
        return self.learner.network

    @property
    def loss(self) -> Loss:
        """The loss."""
        return self.learner.loss

    @property
    def training(self) -> TrainingOptions:
        """The options of training and of evaluation."""
        return self.learner.training
