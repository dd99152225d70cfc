"""Training error under adversarial training, on clean and on perturbed images.

    python -m experiments.nokland2016.rows "2x800 adversarial" --rules dfa --epochs 5 --seeds 1
    python -m experiments.nokland2016.perturbed

`fa-jax` measures the training error on the batches that a network learns from, which are perturbed. This script repeats
the run of `rows.py`, with another order of the images, and measures both errors. `perturbed.csv` has them for each
epoch, and the error that the run recorded.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from experiments.common import add_output_options, results_folder, write_table
from experiments.nokland2016.rows import row_of
from experiments.training import trained
from fa_jax.cli.build import build
from fa_jax.core import Batch
from fa_jax.training.adversarial import fast_gradient_sign
from fa_jax.training.job import Job

HERE = Path(__file__).parent


def errors(job: Job, epochs: int) -> list[tuple[float, float]]:
    """Returns the training errors in % of each epoch, on clean and on perturbed images."""
    task, size = job.task, job.training.batch_size
    steps = len(task.train.inputs) // size
    params, feedback = job.rule.init(jax.random.key(0))

    def step(state, chosen):
        params, optimizer_state = state
        inputs, targets = (jnp.take(part, chosen, axis=0) for part in task.train)
        batch = Batch(task.prepare(inputs), task.encode(targets), jax.random.key(0))
        perturbed = fast_gradient_sign(job.network, job.loss.value, params, batch, job.training.adversarial)
        wrong = [
            jnp.mean(jnp.argmax(job.rule.predict(params, inputs), -1) != jnp.argmax(batch.targets, -1))
            for inputs in (batch.inputs, perturbed.inputs)
        ]
        updates = job.rule.updates(params, feedback, perturbed)
        updates, optimizer_state = job.learner.optimizer.update(updates, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), jnp.stack(wrong)

    @jax.jit
    def epoch(state, key):
        order = jax.random.permutation(key, len(task.train.inputs))
        state, wrong = jax.lax.scan(step, state, order[: steps * size].reshape(steps, size))
        return state, 100 * wrong.mean(0)

    state, rows = (params, job.learner.optimizer.init(params)), []
    for key in jax.random.split(jax.random.key(1), epochs):
        state, (clean, perturbed) = epoch(state, key)
        rows.append((float(clean), float(perturbed)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_output_options(parser)
    options = parser.parse_args()
    (run,) = trained(row_of("2x800 adversarial", "dfa", epochs=5))
    rows = []
    for epoch, (clean, perturbed) in enumerate(errors(build(run.config), 5), 1):
        recorded = run.at_epoch("train_error", epoch)
        assert recorded is not None  # it was evaluated after every epoch
        row = {"epoch": epoch, "as they are": f"{clean:.2f}", "perturbed": f"{perturbed:.2f}"}
        rows.append(({**row, "recorded": f"{recorded.mean():.2f}"}, [run]))
    write_table(results_folder(options, HERE) / "perturbed.csv", rows)


if __name__ == "__main__":
    main()
