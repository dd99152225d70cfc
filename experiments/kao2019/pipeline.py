"""Associated learning as a pipeline: its speed against learning in turn and against backprop, and its timeline.

    python -m experiments.kao2019.pipeline

MNIST has to be where `$TFDS_DATA_DIR` says, and the machine idle. `pipeline.csv` and `timeline.png` beside this file
are written. Networks are trained with a core for each device, one device having one core and two having two, and with
all cores for whatever there is, where a matrix product of one device spreads over all of them by itself. Each
measurement is a process of its own, since cores and devices are fixed when JAX starts.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import hydra
import jax
import jax.numpy as jnp
import optax

from fa_jax import optimizers
from fa_jax.cli import help as catalogue
from fa_jax.cli.build import build
from fa_jax.cli.errors import plain
from fa_jax.core import Batch
from fa_jax.records.writer import environment
from fa_jax.rules.associated_learning.pipeline import modelled, stage_seconds, train_pipelined
from fa_jax.training.compile import make_program_of

HERE = Path(__file__).parent
NETWORKS = {
    "eight equal stages of 512": ([512] * 8, 64, 256, 60),
    "two stages of 256": ([256] * 2, 256, 128, 150),
    "the paper's, two stages of 1024": ([1024] * 2, 1024, 32, 25),
}
"""Hidden layers, width of the codes, batch size, steps."""
DRAWN = "eight equal stages of 512"
DEVICES = (1, 2, 4)
REPEATS = 3
WARM = 10
"""Batches at the beginning that do not count: the first one compiles."""


def words_of(name: str) -> tuple[list[str], list[str]]:
    """The overrides of associated learning, and of backprop on a network shaped like the one that it predicts with."""
    hidden, width, batch_size, _ = NETWORKS[name]
    common = ["task=mnist", f"batch_size={batch_size}", "seeds=1", "probe=0", "optimizer.learning_rate=0.0001"]
    effective = [*hidden, 5 * width, width, *[width] * (len(hidden) - 1)]
    return (
        [*common, "rule=associated_learning", f"architecture.hidden={hidden}", f"rule.width={width}"],
        [*common, "rule=bp", "optimizer=adam", f"architecture.hidden={effective}"],
    )


def measure(name: str, cores: int, counts: list[int]) -> dict[str, dict]:
    """Steps a second of ways to train a network, in this process on so many cores, and what the devices did.

    Pipelines on these numbers of devices; with that on one device come the programs without one, and the model.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    jax.config.update("jax_num_cpu_devices", max(counts))
    counts = [count for count in counts if count <= len(jax.devices())]  # fewer where there are accelerators

    def job_of(words):
        with hydra.initialize_config_dir(str(catalogue.CONF), version_base="1.3"):
            return build(plain(hydra.compose("config", [*words, "devices=1"])))

    def scanned(job):
        program, seeds = make_program_of(job, 1), jnp.zeros(1, jnp.int32)
        states, fixed = program.start(seeds)
        states = jax.block_until_ready(program.advance(states, fixed, seeds, 0, WARM, program.data))
        begin = time.perf_counter()
        jax.block_until_ready(program.advance(states, fixed, seeds, WARM, WARM + steps, program.data))
        return steps / (time.perf_counter() - begin)

    learning, backprop = map(job_of, words_of(name))
    steps = NETWORKS[name][3]
    adam = optimizers.descend(
        optax.scale_by_adam(), learning_rate=1e-4, schedule=optimizers.constant, weight_decay=0.0, clip=None
    )(steps)

    params, _ = learning.rule.init(jax.random.key(0))
    optimizer = optimizers.at_rates(adam, learning.rule.rates, params)
    task, size = learning.task, learning.training.batch_size
    rows = [slice(i * size, (i + 1) * size) for i in range(WARM + steps)]
    batches = [
        Batch(task.prepare(task.train.inputs[row]), task.encode(task.train.targets[row]), jax.random.key(0))
        for row in rows
    ]
    found, events = {}, {}
    for _ in range(REPEATS):
        if 1 in counts:
            found.setdefault("BP, one program", []).append(scanned(backprop))
            found.setdefault("AL, one program", []).append(scanned(learning))
        for count in counts:
            done = train_pipelined(learning.rule.network, optimizer, params, batches, jax.devices()[:count])[1]
            last = [event.end for event in done if event.device == count - 1]
            found.setdefault(f"AL, pipeline on {count}", []).append(steps / (last[-1] - last[WARM - 1]))
            events[count] = [tuple(event) for event in done]
    costs = stage_seconds(learning.rule.network, optimizer, params, batches[0], jax.devices()[0], 20)
    return {
        "speeds": {way: statistics.median(speeds) for way, speeds in found.items()},
        "modelled": {f"AL, pipeline on {count}": steps / modelled(costs, steps, count) for count in _counts(name)},
        "stages": [1000 * cost for cost in costs],
        "events": events,
    }


def _counts(name: str) -> list[int]:
    """Numbers of devices that a network has enough stages for."""
    return [count for count in DEVICES if count <= len(NETWORKS[name][0])]


def apart(name: str, cores: int, counts: list[int]) -> dict:
    """What `measure` returns, measured in another process."""
    told = json.dumps([name, cores, counts])
    done = subprocess.run([sys.executable, __file__, "--one", told], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(name: str, cores: str, found: dict) -> list[dict[str, object]]:
    """The lines of the table that a process has measured."""
    speeds = found["speeds"]
    return [
        {
            "network": name,
            "cores": cores,
            "way": way,
            "steps/s": f"{speed:.1f}",
            "against AL in turn": f"{speed / speeds['AL, pipeline on 1']:.2f}",
            "against BP": f"{speed / speeds['BP, one program']:.2f}",
            "modelled steps/s": f"{found['modelled'][way]:.1f}" if way in found["modelled"] else "",
            "milliseconds of each stage": " ".join(f"{cost:.2f}" for cost in found["stages"]),
        }
        for way, speed in speeds.items()
    ]


def draw(name: str, events: list[list[float]]) -> None:
    """Draws what each device did when, for some batches once all are under way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.4), layout="constrained", dpi=150)
    axes = figure.subplots()
    chosen = [event for event in events if 20 <= event[1] < 30]
    start = min(begin for _, _, begin, _ in chosen)
    for device, batch, begin, end in chosen:
        left, wide = 1000 * (begin - start), 1000 * (end - begin)
        axes.barh(device, wide, 0.7, left, color=f"C{int(batch) % 10}", edgecolor="white", linewidth=0.6)
        axes.text(left + wide / 2, device, str(int(batch)), ha="center", va="center", fontsize=7, color="white")
    axes.set_yticks(sorted({int(event[0]) for event in chosen}), minor=False)
    axes.set_ylabel("device")
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_title(f"{name}: which batch each device learns from, and when", fontsize=9)
    for suffix in ("png", "pdf"):
        figure.savefig(HERE / f"timeline.{suffix}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(*json.loads(chosen.one))))
        return
    there = len(os.sched_getaffinity(0))
    rows = []
    for name in NETWORKS:
        found = apart(name, 1, [1])
        for count in _counts(name)[1:]:
            if count <= there:
                wider = apart(name, count, [count])
                found["speeds"] |= wider["speeds"]
                found["events"] |= wider["events"]
        of_network = rows_of(name, "1", found)
        if name == DRAWN and "2" in found["events"]:
            draw(name, found["events"]["2"])
        shared = apart(name, there, _counts(name))
        # No model of devices that share their cores: each stage was timed with all of them to itself.
        of_network += rows_of(name, f"all {there}", {**shared, "modelled": {}})
        print(*of_network, sep="\n", flush=True)
        rows += of_network
    made = environment()
    with (HERE / "pipeline.csv").open("w", newline="") as file:
        about = f"{made['time']}, {made['processor']}, {made['cores']} cores, jax {made['packages']['jax']}"
        file.write(f"# {about}, commit {(made['commit'] or 'unknown')[:8]}; medians of {REPEATS}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
