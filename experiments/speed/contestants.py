"""The training loops that are compared, and the process that runs one of them.

    python -m experiments.speed.contestants '{"loop": "FaJax", "overrides": ["rule=fa"]}'

The process sets up a loop. For every number of steps on its standard input, it trains so many steps and prints the
seconds. Between two blocks it waits for input and uses no core.
"""

# pyright: reportMissingImports=false

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from experiments.speed.limit import TorchProducts, XlaProducts

SHAPE, CLASSES = (28, 28, 1), 10
SIZES = {"train": 60000, "test": 10000}
"""The numbers of examples of MNIST."""
LEARNING_RATE = 0.1


def mnist_like(split: str, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes noisy images of ten classes in the shape of MNIST; one label in ten is random.

    Args:
      split: `train` or `test`, which differ in their noise.
      examples: their number.

    Returns:
      Images, uint8 `[examples, 28, 28, 1]`, and classes, int32 `[examples]`.
    """
    templates = np.random.default_rng(0).integers(0, 128, (CLASSES, *SHAPE), np.uint8)
    noise = np.random.default_rng(1 + sorted(SIZES).index(split))
    classes = noise.integers(0, CLASSES, examples, np.int32)
    images = templates[classes] + noise.integers(0, 128, (examples, *SHAPE), np.uint8)
    # Random labels keep the loss, and with it all numbers, from vanishing in a long measurement.
    random = noise.random(examples) < 0.1
    return images, np.where(random, noise.integers(0, CLASSES, examples, np.int32), classes)


def mnist_like_task(train_examples: int = SIZES["train"], test_examples: int = SIZES["test"]):
    """Returns the fa_jax `Task` of these images; a substitute for `fa_jax.tasks.images.images`."""
    from fa_jax.tasks.images import labelled

    train, test = mnist_like("train", train_examples), mnist_like("test", test_examples)
    return labelled(train, test, classes=CLASSES, top=255, preprocessing="unit", validation=0)


class FaJax:
    """A run of `fa-jax` without evaluations and records: the same job and the same compiled program."""

    def __init__(self, overrides: Sequence[str], synthetic: dict[str, int] | None = None):
        """Builds the job that `fa-jax` would build.

        Args:
          overrides: arguments of `fa-jax`.
          synthetic: arguments of `mnist_like_task`, which replaces the task; None: the task stays.
        """
        import jax
        import jax.numpy as jnp

        from fa_jax.training.compile import make_program_of

        self.job = _job(overrides, synthetic)
        self.program = make_program_of(self.job, len(self.job.groups[0]))
        self.seeds = jnp.asarray(self.job.groups[0], jnp.int32)
        self.states = jax.block_until_ready(self.program.init(self.seeds, {}))
        self.step = 0

    def run(self, steps: int) -> None:
        """Trains every seed for a number of steps."""
        import jax
        import jax.numpy as jnp

        first, last = jnp.int32(self.step), jnp.int32(self.step + steps)
        advanced = self.program.train(self.states, self.seeds, first, last, self.program.data())
        self.states = jax.block_until_ready(advanced)
        self.step += steps


class OptimizerSteps:
    """The optimizer's steps of a run of `fa-jax`, with updates that are given and not computed."""

    def __init__(self, overrides: Sequence[str], synthetic: dict[str, int] | None = None):
        """Builds the job that `fa-jax` would build, and compiles the loop; arguments as for `FaJax`."""
        import jax
        import jax.numpy as jnp
        import optax

        job = _job(overrides, synthetic)
        optimizer = job.learner.optimizer
        params, _ = job.rule.init(jax.random.key(0))
        # Each step reads one of two updates, so that nothing can be moved out of the loop.
        self.updates = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), params)
        self.state = params, optimizer.init(params)

        def loop(steps, state, updates):
            def step(i, state):
                params, optimizer_state = state
                of_step = jax.tree.map(lambda leaf: leaf[i % 2], updates)
                deltas, optimizer_state = optimizer.update(of_step, optimizer_state, params)
                return optax.apply_updates(params, deltas), optimizer_state

            return jax.lax.fori_loop(0, steps, step, state)

        self.loop = jax.jit(loop, donate_argnums=1)

    def run(self, steps: int) -> None:
        """Takes a number of steps."""
        import jax

        self.state = jax.block_until_ready(self.loop(steps, self.state, self.updates))


def _job(overrides: Sequence[str], synthetic: dict[str, int] | None):
    """Returns the job of a run of `fa-jax`; arguments as for `FaJax`."""
    import hydra
    from omegaconf import OmegaConf

    from fa_jax.cli.build import build
    from fa_jax.cli.groups import CONF

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose("config", list(overrides))
    config = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    if synthetic is not None:
        config["task"] = {"_target_": "experiments.speed.contestants.mnist_like_task", **synthetic}
    return build(config, origin=None)


class Torch:
    """PyTorch, or a network converted by BioTorch, on the images of `mnist_like`."""

    def __init__(
        self,
        hidden: Sequence[int],
        rule: str = "bp",
        threads: int = 1,
        batch_size: int = 64,
        train_examples: int = SIZES["train"],
    ):
        """Makes the network and its data.

        Args:
          hidden: widths of the hidden layers.
          rule: `bp` for PyTorch alone, `fa` or `dfa` for BioTorch.
          threads: their number.
          batch_size: the number of examples of a step.
          train_examples: the number of training examples.
        """
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.rule, self.batch_size = rule, batch_size
        self.inputs, self.targets = _tensors(train_examples)
        self.net = _biotorch(_perceptron(hidden), rule) if rule != "bp" else _perceptron(hidden)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, LEARNING_RATE, fused=True)
        self.batches = self._batches()

    def run(self, steps: int) -> None:
        """Trains for a number of steps."""
        from torch.nn.functional import cross_entropy

        for _ in range(steps):
            chosen = next(self.batches)
            inputs, targets = self.inputs[chosen], self.targets[chosen]
            self.optimizer.zero_grad(set_to_none=True)
            # BioTorch computes the output error of DFA in the forward pass, and needs the loss there.
            options = {"targets": targets, "loss_function": cross_entropy} if self.rule == "dfa" else {}
            cross_entropy(self.net(inputs, **options), targets).backward()
            self.optimizer.step()

    def _batches(self) -> Iterator:
        """Yields the indices of each batch, in a new order in every epoch."""
        import torch

        while True:
            batches = torch.randperm(len(self.inputs)).split(self.batch_size)
            yield from (batch for batch in batches if len(batch) == self.batch_size)


class TorchNokland(Torch):
    """Backprop with the settings of Nøkland (2016): sigmoid outputs, binary cross-entropy, RMSprop."""

    def __init__(
        self, hidden: Sequence[int], threads: int = 1, batch_size: int = 64, train_examples: int = SIZES["train"]
    ):
        """Makes the network and its data; arguments as for `Torch`."""
        super().__init__(hidden, threads=threads, batch_size=batch_size, train_examples=train_examples)
        import torch

        self.optimizer = torch.optim.RMSprop(self.net.parameters(), 1e-4, alpha=0.99, eps=1e-8, foreach=True)

    def run(self, steps: int) -> None:
        from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

        for _ in range(steps):
            chosen = next(self.batches)
            targets = one_hot(self.targets[chosen], CLASSES).float()
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.net(self.inputs[chosen])
            (binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(chosen)).backward()
            self.optimizer.step()


class TorchForwardForward(Torch):
    """Forward-Forward in PyTorch: positive and negative data in one batch, one backward pass for all local losses.

    The arithmetic is that of `fa_jax.rules.forward_forward.feedforward` with uniform negatives; gradients are twice as
    large.
    """

    def __init__(self, hidden: Sequence[int], threads: int, batch_size: int = 100):
        """Makes the layers, the readout and the data; arguments as for `Torch`."""
        super().__init__(hidden, threads=threads, batch_size=batch_size)
        import torch

        self.layers = [layer for layer in self.net if isinstance(layer, torch.nn.Linear)][: len(hidden)]
        self.readout = torch.nn.Linear(sum(hidden[1:]), CLASSES, bias=False)
        self.means = [torch.full((width,), 0.5) for width in hidden]
        layers = {"params": [p for layer in self.layers for p in layer.parameters()], "weight_decay": 1e-3}
        readout = {"params": self.readout.parameters(), "lr": LEARNING_RATE / 10, "weight_decay": 3e-3}
        self.optimizer = torch.optim.SGD([layers, readout], LEARNING_RATE / 100, momentum=0.9, fused=True)

    def run(self, steps: int) -> None:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

        def normalised(y):
            return y / (y.square().mean(-1, keepdim=True).sqrt() + 1e-8)

        for _ in range(steps):
            chosen = next(self.batches)
            inputs, targets = self.inputs[chosen], self.targets[chosen]
            pixels, rows = inputs[:, CLASSES:], len(inputs)
            wrong = (targets + torch.randint(1, CLASSES, targets.shape)) % CLASSES
            labels = one_hot(torch.cat([targets, wrong]), CLASSES).float()
            n = normalised(torch.cat([labels, torch.cat([pixels, pixels])], -1))
            positive = (torch.arange(2 * rows) < rows).float()
            total = torch.zeros(())
            for i, layer in enumerate(self.layers):
                y = torch.relu(layer(n))
                self.means[i] = 0.9 * self.means[i].detach() + 0.1 * y[:rows].mean(0)
                total = total + 0.03 * (self.means[i] - self.means[i].mean()).square().mean()
                goodness = y.square().sum(-1) - y.shape[-1]
                total = total + binary_cross_entropy_with_logits(goodness, positive)
                n = normalised(y.detach())
            with torch.no_grad():
                n, activities = normalised(torch.cat([torch.full((rows, CLASSES), 1 / CLASSES), pixels], -1)), []
                for layer in self.layers:
                    n = normalised(torch.relu(layer(n)))
                    activities.append(n)
            self.optimizer.zero_grad(set_to_none=True)
            (total + cross_entropy(self.readout(torch.cat(activities[1:], -1)), targets)).backward()
            self.optimizer.step()


class TorchAssociatedLearning(Torch):
    """Associated learning in PyTorch with its fused Adam; the arithmetic of `fa_jax.rules.associated_learning.rule`."""

    def __init__(self, hidden: Sequence[int], threads: int, batch_size: int = 128):
        """Makes the stages, codes of the same widths, and bridges of one hidden layer, five times as wide."""
        super().__init__(hidden, threads=threads, batch_size=batch_size)
        import torch
        from torch.nn import ELU, Linear, ModuleList, Sequential, Sigmoid

        sizes = list(itertools.pairwise([int(np.prod(SHAPE)), *hidden]))
        codes = list(itertools.pairwise([CLASSES, *hidden]))
        self.stages = ModuleList(Sequential(Linear(m, n), ELU()) for m, n in sizes)
        self.bridges = ModuleList(Sequential(Linear(n, 5 * n), Sigmoid(), Linear(5 * n, n), Sigmoid()) for n in hidden)
        self.encoders = ModuleList(Sequential(Linear(m, n), Sigmoid()) for m, n in codes)
        self.decoders = ModuleList(Sequential(Linear(n, m), Sigmoid()) for m, n in codes)
        input_side = {"params": [*self.stages.parameters(), *self.bridges.parameters()]}
        label_side = {"params": [*self.encoders.parameters(), *self.decoders.parameters()], "lr": 2e-3}
        self.optimizer = torch.optim.Adam([input_side, label_side], 1e-3, fused=True)

    def run(self, steps: int) -> None:
        import torch
        from torch.nn.functional import mse_loss, one_hot

        for _ in range(steps):
            chosen = next(self.batches)
            s, t = self.inputs[chosen], one_hot(self.targets[chosen], CLASSES).float()
            total = torch.zeros(())
            for f, b, g, h in zip(self.stages, self.bridges, self.encoders, self.decoders, strict=True):
                s, below = f(s.detach()), t.detach()
                t = g(below)
                total = total + mse_loss(b(s), t.detach()) + mse_loss(h(t), below)
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            self.optimizer.step()


def _perceptron(hidden: Sequence[int]):
    from torch import nn

    widths = [int(np.prod(SHAPE)), *hidden]
    layers = [layer for m, n in itertools.pairwise(widths) for layer in (nn.Linear(m, n), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))


def _biotorch(net, rule: str):
    from biotorch.module.biomodule import BioModule

    return BioModule(net, mode=rule, output_dim=CLASSES)


def _tensors(examples: int):
    """Returns the images as floats in [0, 1], flattened, and the classes, converted once and not in every step."""
    import torch

    images, classes = mnist_like("train", examples)
    flat = torch.from_numpy(images.reshape(examples, -1)).float() / 255
    return flat, torch.from_numpy(classes.astype(np.int64))


LOOPS = {
    loop.__name__: loop
    for loop in (
        FaJax,
        OptimizerSteps,
        Torch,
        TorchNokland,
        TorchForwardForward,
        TorchAssociatedLearning,
        TorchProducts,
        XlaProducts,
    )
}


def main(spec: dict) -> None:
    """Runs one contestant; `spec` holds its class as `loop`, its `cores`, and the arguments of the class."""
    loop, cores = LOOPS[spec.pop("loop")], spec.pop("cores", None)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps the output of libraries apart from the replies
    if cores is not None:
        os.sched_setaffinity(0, cores)
    if loop in (FaJax, OptimizerSteps, XlaProducts):
        import jax

        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))  # as `fa-jax` does
    contestant = loop(**spec)
    for line in sys.stdin:
        began = time.perf_counter()
        contestant.run(int(line))
        print(time.perf_counter() - began, file=replies, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
