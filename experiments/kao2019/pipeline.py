"""Associated learning as a pipeline: its speed compared with sequential training and with backprop, and its timeline.

    python -m experiments.kao2019.pipeline

The script needs an idle machine and MNIST in `$TFDS_DATA_DIR`. It writes `pipeline.csv` and `timeline.png` to
outputs/kao2019/results, or with `--update` beside this file. Networks are trained in two ways: with one core for each
device, so that one device has one core and two devices have two; and with all cores for any number of devices, where a
matrix product of one device uses all cores anyway. Each measurement runs in a new process, since cores and devices are
fixed when JAX starts.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.common import add_output_options, results_folder
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.core import Batch, PyTree
from fa_jax.network import Network
from fa_jax.records.environment import environment
from fa_jax.rules.associated_learning.pipeline import Worker, train_pipelined
from fa_jax.training.compile import make_program_of
from fa_jax.training.job import Job

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
WARM_UP = 10
"""Batches at the beginning that are not timed; the first one compiles."""


def overrides_of(name: str) -> tuple[list[str], list[str]]:
    """Returns the overrides of associated learning, and of backprop on the layers that it predicts with."""
    hidden, width, batch_size, _ = NETWORKS[name]
    common = ["task=mnist", f"batch_size={batch_size}", "seeds=1", "probe=0", "optimizer.learning_rate=0.0001"]
    effective = [*hidden, 5 * width, width, *[width] * (len(hidden) - 1)]
    return (
        [*common, "rule=associated_learning", f"architecture.hidden={hidden}", f"rule.width={width}"],
        [*common, "rule=bp", "optimizer=adam", f"architecture.hidden={effective}"],
    )


def measure(name: str, cores: int, counts: list[int]) -> dict[str, Any]:
    """Measures the ways to train a network in this process.

    Args:
      name: in `NETWORKS`.
      cores: that the process may use.
      counts: numbers of devices of the pipelines. If 1 is among them, the programs without a pipeline are timed too.

    Returns:
      Steps per second by way, the same by the model of a pipeline, milliseconds of each stage, and the events of the
      last repeat by number of devices.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    jax.config.update("jax_num_cpu_devices", max(counts))
    counts = [count for count in counts if count <= len(jax.devices())]  # fewer if JAX uses accelerators

    associated, backprop = (compose(parse([*given, "devices=1"])).runs[0].job for given in overrides_of(name))
    steps = NETWORKS[name][3]
    params, _ = associated.rule.init(jax.random.key(0))
    task, size = associated.task, associated.training.batch_size
    rows = [slice(i * size, (i + 1) * size) for i in range(WARM_UP + steps)]
    batches = [
        Batch(task.prepare(task.train.inputs[row]), task.encode(task.train.targets[row]), jax.random.key(0))
        for row in rows
    ]
    speeds: dict[str, list[float]] = {}
    events = {}
    for _ in range(REPEATS):
        if 1 in counts:
            speeds.setdefault("BP, one program", []).append(steps_per_second(backprop, steps))
            speeds.setdefault("AL, one program", []).append(steps_per_second(associated, steps))
        for count in counts:
            devices = jax.devices()[:count]
            _, work = train_pipelined(associated.network, associated.learner.optimizer, params, batches, devices)
            ends = [event.end for event in work if event.device == count - 1]
            speeds.setdefault(f"AL, pipeline on {count}", []).append(steps / (ends[-1] - ends[WARM_UP - 1]))
            events[count] = [tuple(event) for event in work]
    costs = stage_seconds(associated.network, associated.learner.optimizer, params, batches[0], jax.devices()[0], 20)
    return {
        "speeds": {way: statistics.median(values) for way, values in speeds.items()},
        "modelled": {
            f"AL, pipeline on {count}": steps / modelled_seconds(costs, steps, count) for count in _counts(name)
        },
        "stages": [1000 * cost for cost in costs],
        "events": events,
    }


def steps_per_second(job: Job, steps: int) -> float:
    """Returns the speed of the compiled program of `fa-jax`."""
    program, seeds = make_program_of(job, 1), jnp.zeros(1, jnp.int32)
    states = program.init(seeds, {})
    states = jax.block_until_ready(program.train(states, seeds, 0, WARM_UP, program.data()))
    began = time.perf_counter()
    jax.block_until_ready(program.train(states, seeds, WARM_UP, WARM_UP + steps, program.data()))
    return steps / (time.perf_counter() - began)


def stage_seconds(
    associated: Network,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    batch: Batch,
    device: jax.Device,
    repeats: int,
) -> list[float]:
    """Returns the median seconds of a step of each stage by itself; arguments are those of `train_pipelined`."""
    s, t = jax.device_put((batch.inputs, batch.targets), device)
    medians = []
    for i in range(len(associated.module.stages)):
        worker = Worker(associated, optimizer, params, np.array([i]), device)
        durations = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            outputs = jax.block_until_ready(worker.step(s, t, batch.key))
            durations.append(time.perf_counter() - began)
        medians.append(float(np.median(durations[1:])))  # the first step compiles
        s, t = outputs
    return medians


def modelled_seconds(costs: Sequence[float], batches: int, devices: int) -> float:
    """Returns the seconds that a pipeline should take: (batches + devices - 1) times those of its slowest device.

    Devices have the stages that `train_pipelined` assigns to them. Handing batches on is taken to cost nothing.

    Args:
      costs: seconds of a step of each stage.
      batches: the number of batches.
      devices: the number of devices.
    """
    groups = [sum(costs[i] for i in group) for group in np.array_split(np.arange(len(costs)), devices)]
    return (batches + devices - 1) * max(groups)


def _counts(name: str) -> list[int]:
    """Returns the numbers of devices that a network has enough stages for."""
    return [count for count in DEVICES if count <= len(NETWORKS[name][0])]


def measure_in_new_process(name: str, cores: int, counts: list[int]) -> dict:
    """Returns the result of `measure` in a new process."""
    command = [sys.executable, "-m", "experiments.kao2019.pipeline", "--measure", json.dumps([name, cores, counts])]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def rows_of(name: str, cores: str, measured: dict) -> list[dict[str, object]]:
    """Returns the rows of the table for one result of `measure`."""
    speeds = measured["speeds"]
    return [
        {
            "network": name,
            "cores": cores,
            "way": way,
            "steps/s": f"{speed:.1f}",
            "against AL in turn": f"{speed / speeds['AL, pipeline on 1']:.2f}",
            "against BP": f"{speed / speeds['BP, one program']:.2f}",
            "modelled steps/s": f"{measured['modelled'][way]:.1f}" if way in measured["modelled"] else "",
            "milliseconds of each stage": " ".join(f"{cost:.2f}" for cost in measured["stages"]),
        }
        for way, speed in speeds.items()
    ]


def draw(name: str, events: list[list[float]], path: Path) -> None:
    """Draws the work of each device over time, for ten batches after all devices have started."""
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
        figure.savefig(path.with_suffix(f".{suffix}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    add_output_options(parser)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(*json.loads(chosen.measure))))
        return
    into = results_folder(chosen, HERE)
    available = len(os.sched_getaffinity(0))
    rows = []
    for name in NETWORKS:
        measured = measure_in_new_process(name, 1, [1])
        for count in _counts(name)[1:]:
            if count <= available:
                with_more_cores = measure_in_new_process(name, count, [count])
                measured["speeds"] |= with_more_cores["speeds"]
                measured["events"] |= with_more_cores["events"]
        of_network = rows_of(name, "1", measured)
        if name == DRAWN and "2" in measured["events"]:
            draw(name, measured["events"]["2"], into / "timeline")
        shared = measure_in_new_process(name, available, _counts(name))
        # The model does not hold for devices that share their cores: each stage was timed with all of them.
        of_network += rows_of(name, f"all {available}", {**shared, "modelled": {}})
        print(*of_network, sep="\n", flush=True)
        rows += of_network
    machine = environment()
    with (into / "pipeline.csv").open("w", newline="") as file:
        provenance = f"{machine['time']}, {machine['processor']}, {machine['cores']} cores"
        commit = (machine["commit"] or "unknown")[:8]
        file.write(f"# {provenance}, jax {machine['packages']['jax']}, commit {commit}; medians of {REPEATS}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
