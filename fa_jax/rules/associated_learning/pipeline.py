"""Associated learning as a pipeline: a stage learns from one batch while the stage below works on the next.

Nothing travels down, so stages on several devices need not wait for each other's updates, and the result is that of
training them one after another: stage i meets batch m after exactly m of its own updates, and stage i - 1 made that
output after exactly m of its updates. With stages of equal cost, n batches and k devices take (n + k - 1) / (n k) of
the time of one device.

Kao, Chen, 2021, where the cost is O(n + l) against O(n l). Here each device has a thread, with queues between them: in
a single program over a mesh of devices, all stages would wait for the slowest in every step.
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
from fa_jax.networks.fast_gradients import grad
from fa_jax.rules.associated_learning.rule import PARTS, Associated, component
from fa_jax.rules.stagewise import add_weight_decay

QUEUE_SIZE = 2
"""The number of batches that may wait for a device."""


class Event(NamedTuple):
    """A device's work on one batch; times are in seconds from the start."""

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
    *,
    weight_decay: float = 0.0,
) -> tuple[PyTree, list[Event]]:
    """Returns the params after one step on each batch, and the work of every device.

    Stages are assigned to the devices in order, as evenly as possible, more to the first ones.

    Args:
      associated: the network of `associated_learning`, its `Rule.extras.network`.
      optimizer: with the rule's learning-rate multipliers, as that of a job. Each device has one of its own, so it must
        not mix params, as a global norm does.
      params: of the whole network.
      batches: one per step.
      devices: `[device] * 2` is two threads on one device.
      weight_decay: of the stages' kernels, as for `associated_learning`.

    Raises:
      BadOption: if there are no devices or more than stages, or the network is none of associated learning, has running
        statistics, or drops units.
    """
    _check(associated, len(devices))
    groups = np.array_split(np.arange(len(associated.module.stages)), len(devices))
    pairs = zip(groups, devices, strict=True)
    workers = [Worker(associated, optimizer, params, group, device, weight_decay) for group, device in pairs]
    queues: list[queue.Queue] = [queue.Queue(QUEUE_SIZE) for _ in devices]
    events: list[Event] = []
    problems: list[BaseException] = []

    def work(i: int) -> None:
        number = 0
        try:
            while (item := queues[i].get()) is not None:
                s, t, key = jax.device_put(item, workers[i].device)
                begin = time.perf_counter()
                s, t = jax.block_until_ready(workers[i].step(s, t, key))
                events.append(Event(i, number, begin, time.perf_counter()))
                number += 1
                if i + 1 < len(queues):
                    queues[i + 1].put((s, t, item[2]))
        except BaseException as problem:
            problems.append(problem)
            while queues[i].get() is not None:  # so that no other thread waits for room
                pass
        if i + 1 < len(queues):
            queues[i + 1].put(None)

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
    start = min((event.begin for event in events), default=0.0)
    ordered = sorted(events, key=lambda event: event.begin)
    relative = [event._replace(begin=event.begin - start, end=event.end - start) for event in ordered]
    return {name: jax.device_get(part) for worker in workers for name, part in worker.params.items()}, relative


def _check(associated: Network, devices: int) -> None:
    if not isinstance(associated, Network) or not isinstance(associated.module, Associated):
        kind = type(getattr(associated, "module", associated)).__name__
        raise BadOption(f"pipeline: needs the network of associated learning, as job.network; got {kind}")
    stages = associated.module.stages
    if not 1 <= devices <= len(stages):
        raise BadOption(f"pipeline: needs 1 to {len(stages)} devices, at most one per stage; got {devices}")
    if associated.statistics_paths:
        raise BadOption("pipeline: cannot train running statistics; it needs norm=none")
    layers = [layer for stage in stages for layer in getattr(stage, "layers", [stage])]
    if any(getattr(layer, "dropout", 0) or getattr(layer, "input_dropout", 0) for layer in layers):
        raise BadOption("pipeline: stages would draw other dropout masks; it needs dropout=0")


class Worker:
    """Some stages on a device, with their params and optimizer."""

    def __init__(
        self,
        associated: Network,
        optimizer: optax.GradientTransformation,
        params: PyTree,
        stages: np.ndarray,
        device: Any,
        weight_decay: float = 0.0,
    ):
        self.device = device
        parts = {name: params[name] for name in (f"{part}_{stage}" for stage in stages for part in PARTS)}
        steps = [component(associated, int(stage)) for stage in stages]
        decay = {f"stages_{stage}": weight_decay for stage in stages}
        # Copied, since steps donate these arrays, which others may use.
        copies = jax.tree.map(np.array, jax.device_get((parts, optimizer.init(parts))))
        self.params, self._optimizer_state = jax.device_put(copies, device)

        def advance(params, optimizer_state, s, t, key):
            def total_loss(params, s, t):
                total = 0.0
                for step in steps:
                    loss, s, t = step(params, s, t, key)
                    total += loss
                return total, (s, t)

            updates, (s, t) = grad(total_loss, has_aux=True)(params, s, t)
            updates = add_weight_decay(updates, params, decay)
            updates, optimizer_state = optimizer.update(updates, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state, s, t

        self._advance = jax.jit(advance, donate_argnums=(0, 1))

    def step(self, s: jax.Array, t: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Learns from the output of the stage below, and returns that of the last stage."""
        self.params, self._optimizer_state, s, t = self._advance(self.params, self._optimizer_state, s, t, key)
        return s, t
