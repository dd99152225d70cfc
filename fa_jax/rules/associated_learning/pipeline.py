"""Associated learning as a pipeline: a stage learns from one batch while the stage below works on the next.

Nothing travels down, so stages on several devices need not wait for each other's updates, and what they learn is what
they learn in turn: stage i meets batch m after exactly m of its own updates, and stage i - 1 made it after exactly m of
its. With stages that cost the same, n batches and k devices take (n + k - 1) / (n k) of the time of one device.

Kao, Chen, 2021, where the cost is O(n + l) against O(n l); each device has a thread here, and queues between them: a
single program over a mesh of devices would have all stages wait for the slowest in every step.
"""

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from fa_jax.checks import BadOption
from fa_jax.core import Batch, PyTree
from fa_jax.network import Network
from fa_jax.rules.associated_learning.rule import PARTS, Associated, component, decayed

WAITING = 2
"""Batches that may wait in front of a device."""


class Event(NamedTuple):
    """A device's work on one batch; seconds count from the first."""

    device: int
    batch: int
    begin: float
    end: float


def train_pipelined(
    associated: Network,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    batches: Iterable[Batch],
    devices: Sequence[jax.Device],
) -> tuple[PyTree, list[Event]]:
    """Returns the params after one step on each batch, and what every device did when.

    Stages go to the devices in order, as evenly as their number allows, the first ones having more.

    Args:
      associated: the network of `associated_learning`, its `Rule.network`.
      optimizer: with the rule's rates, as a job's has them (`optimizers.at_rates`); none that mixes params, as a global
        norm does, for each device has one of its own.
      params: of the whole network.
      batches: those of each step.
      devices: the same one once more counts as another, so that `[device] * 2` is two threads on one.

    Raises:
      BadOption: if there are more devices than stages, or none, or the network is no such one, or keeps running
        statistics, or drops units.
    """
    if not isinstance(associated, Network) or not isinstance(associated.module, Associated):
        raise BadOption(
            "pipeline: there must be the network of an associated learning, as job.network is with "
            f"rule=associated_learning; got {type(getattr(associated, 'module', associated)).__name__}"
        )
    stages = len(associated.module.stages)
    if not 1 <= len(devices) <= stages:
        raise BadOption(f"pipeline: there must be 1 device to as many as stages, {stages}; got {len(devices)}")
    if associated.statistics:
        raise BadOption(
            "pipeline: a network with running statistics cannot be trained in one; use architecture.norm=none"
        )
    if any(getattr(layer, "dropout", 0) or getattr(layer, "input_dropout", 0) for layer in _layers(associated)):
        raise BadOption("pipeline: stages draw their dropout apart from each other; architecture.dropout must be 0")
    groups = np.array_split(np.arange(stages), len(devices))
    places = zip(groups, devices, strict=True)
    workers = [_Worker(associated, optimizer, params, group, device) for group, device in places]
    queues: list[queue.Queue] = [queue.Queue(WAITING) for _ in devices]
    events: list[Event] = []
    problems: list[BaseException] = []

    def work(place: int) -> None:
        number = 0
        try:
            while (arrived := queues[place].get()) is not None:
                s, t, key = jax.device_put(arrived, workers[place].device)
                begin = time.perf_counter()
                s, t = jax.block_until_ready(workers[place].step(s, t, key))
                events.append(Event(place, number, begin, time.perf_counter()))
                number += 1
                if place + 1 < len(queues):
                    queues[place + 1].put((s, t, arrived[2]))
        except BaseException as problem:
            problems.append(problem)
            while queues[place].get() is not None:  # so that nobody waits for room
                pass
        if place + 1 < len(queues):
            queues[place + 1].put(None)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(devices))]
    for thread in threads:
        thread.start()
    try:
        for batch in batches:
            queues[0].put((batch.inputs, batch.targets, batch.key))
    finally:
        queues[0].put(None)
        for thread in threads:
            thread.join()
    if problems:
        raise problems[0]
    first = min((event.begin for event in events), default=0.0)
    told = [Event(e.device, e.batch, e.begin - first, e.end - first) for e in sorted(events, key=lambda e: e.begin)]
    return {name: jax.device_get(part) for worker in workers for name, part in worker.params.items()}, told


def _layers(associated: Network) -> list[Any]:
    """The layers of all stages."""
    return [layer for stage in associated.module.stages for layer in getattr(stage, "layers", [stage])]


class _Worker:
    """Some stages on a device, with their params and optimizer."""

    def __init__(
        self,
        associated: Network,
        optimizer: optax.GradientTransformation,
        params: PyTree,
        stages: np.ndarray,
        device: Any,
    ):
        self.device = device
        names = [f"{part}_{stage}" for stage in stages for part in PARTS]
        own = {name: params[name] for name in names}
        steps = [component(associated, int(stage)) for stage in stages]
        # Copied, for the arrays are given up to the steps, and may not be this worker's alone.
        self.params, self._slots = jax.device_put(
            jax.tree.map(np.array, jax.device_get((own, optimizer.init(own)))), device
        )

        def advance(params, slots, s, t, key):
            def total(params, s, t):
                losses = 0.0
                for step in steps:
                    loss, s, t = step(params, s, t, key)
                    losses += loss
                return losses, (s, t)

            updates, (s, t) = jax.grad(total, has_aux=True)(params, s, t)
            updates, slots = optimizer.update(decayed(associated, updates, params), slots, params)
            return optax.apply_updates(params, updates), slots, s, t

        self._advance = jax.jit(advance, donate_argnums=(0, 1))

    def step(self, s: jax.Array, t: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Learns from a batch, and returns what goes up."""
        self.params, self._slots, s, t = self._advance(self.params, self._slots, s, t, key)
        return s, t


def stage_seconds(
    associated: Network,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    batch: Batch,
    device: jax.Device,
    repeats: int,
) -> list[float]:
    """Returns the median seconds of a step of each stage, one at a time; arguments as for `train_pipelined`."""
    arrived = jax.device_put((batch.inputs, batch.targets), device)
    medians = []
    for i in range(len(associated.module.stages)):
        worker = _Worker(associated, optimizer, params, np.array([i]), device)
        taken = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            up = jax.block_until_ready(worker.step(arrived[0], arrived[1], batch.key))
            taken.append(time.perf_counter() - begin)
        medians.append(float(np.median(taken[1:])))  # the first one compiles
        arrived = up
    return medians


def modelled(costs: Sequence[float], batches: int, devices: int) -> float:
    """Returns the seconds that a pipeline should take, from those that each stage takes for a batch.

    Groups of stages as `train_pipelined` makes them, each as slow as the slowest: (n + k - 1) times its seconds. It
    leaves out what it costs to hand batches on.
    """
    groups = [sum(costs[i] for i in group) for group in np.array_split(np.arange(len(costs)), devices)]
    return (batches + devices - 1) * max(groups)
