"""Training error under adversarial training, on images before and after they are perturbed.

    python -m experiments.nokland2016.rows "2x800 adversarial" --rules dfa --epochs 5 --seeds 1
    python -m experiments.nokland2016.perturbed

`fa-jax` counts the training error on the batches that a network learns from, which are the perturbed ones. Here the
run of `rows.py` is repeated, with another order of the images, in a loop that counts on both; `perturbed.csv` has,
epoch by epoch, what it counted and what the run recorded.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from experiments.common import write_table
from experiments.nokland2016.rows import place
from fa_jax.cli.build import Job, build
from fa_jax.core import Batch
from fa_jax.records.reader import read_run
from fa_jax.tasks.augmentation import attack

HERE = Path(__file__).parent


def errors(job: Job, epochs: int) -> list[tuple[float, float]]:
    """Returns the training error in % of each epoch, on the images as they are and as they are perturbed."""
    task, size = job.task, job.training.batch_size
    steps = len(task.train.inputs) // size
    params, feedback = job.rule.init(jax.random.key(0))

    def step(state, chosen):
        params, slots = state
        inputs, targets = (jnp.take(part, chosen, axis=0) for part in task.train)
        batch = Batch(task.prepare(inputs), task.encode(targets), jax.random.key(0))
        moved = attack(job.network, job.loss.value, params, batch, job.training.adversarial)
        wrong = [
            jnp.mean(jnp.argmax(job.rule.predict(params, one.inputs), -1) != jnp.argmax(one.targets, -1))
            for one in (batch, moved)
        ]
        updates, slots = job.optimizer.update(job.rule.updates(params, feedback, moved), slots, params)
        return (optax.apply_updates(params, updates), slots), jnp.stack(wrong)

    @jax.jit
    def epoch(state, key):
        order = jax.random.permutation(key, len(task.train.inputs))
        state, wrong = jax.lax.scan(step, state, order[: steps * size].reshape(steps, size))
        return state, 100 * wrong.mean(0)

    state, found = (params, job.optimizer.init(params)), []
    for key in jax.random.split(jax.random.key(1), epochs):
        state, (before, after) = epoch(state, key)
        found.append((float(before), float(after)))
    return found


def main() -> None:
    run = read_run(place("2x800 adversarial", "dfa", epochs=5))
    rows = []
    for epoch, (before, after) in enumerate(errors(build(run.config), 5), 1):
        recorded = run.at_epoch("train_error", epoch).mean()
        row = {"epoch": epoch, "as they are": f"{before:.2f}", "perturbed": f"{after:.2f}"}
        rows.append(({**row, "recorded": f"{recorded:.2f}"}, [run]))
    write_table(HERE / "perturbed.csv", rows)


if __name__ == "__main__":
    main()
