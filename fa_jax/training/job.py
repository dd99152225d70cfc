"""`Job`: everything that one run trains, built from a config and checked."""

import dataclasses

import jax
import optax

from fa_jax.core import Loss, Rule, Task
from fa_jax.loggers.logger import OpenLogger
from fa_jax.network import Network
from fa_jax.training.loop import Training


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run trains, and how."""

    task: Task
    network: Network
    """The network that predicts."""
    loss: Loss
    rule: Rule
    optimizer: optax.GradientTransformation
    feedback_optimizer: optax.GradientTransformation
    training: Training
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
