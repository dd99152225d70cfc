"""Task 3, row 16: looks for a teacher and for settings with which FA with two hidden layers ends below FA with one.

    python -m experiments.lillicrap2014.search                  32 teachers, 64 settings of each curve; resumes
    python -m experiments.lillicrap2014.search --teachers 64    more teachers, after those that are done
    python -m experiments.lillicrap2014.search --best 10        the best ten teachers again, with 20 seeds
    python -m experiments.lillicrap2014.search --teacher 0 --curves bp3 bp4 shallow3      other curves of one teacher

The paper prints neither the distribution of its teacher nor rates nor scales. A teacher is drawn at random, with scales
of its own, among those that an affine map and shallow learning fit as well as the published curves say. Settings are
random, too: learning rate, bounds of both feedback matrices, of the initial weights and of the biases. These are
numbers, so that one program trains all settings of a curve at once, one seed each, on any teacher. How good a setting
is says its distance to the published curve of fig. 2d: the mean of |ln(NSE / published)| over the published points.

`search.csv`, in outputs/lillicrap2014/results or the folder that `--out` names, has a line for each setting. `--best`
takes the teachers whose two closest settings, one of each curve, have the smallest distance together. It writes
`best.csv`: the NSE at the end of the settings that are closest, and of those that ended lowest, and a paired t-test.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from experiments.common import add_output_options, provenance, read_rows, results_folder, write_table
from experiments.lillicrap2014.common import HERE, published
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.core import Task
from fa_jax.records.environment import environment
from fa_jax.tasks.nonlinear import nonlinear
from fa_jax.training import distributed
from fa_jax.training.compile import is_vmapped
from fa_jax.training.job import Job
from fa_jax.training.loop import Data, Learner, Numbers, Program, make_program

CURVES = ("fa3", "fa4", "bp3", "bp4", "shallow3")
COMPARED = CURVES[:2]
RANGES = {
    "rate": (0.003, 0.12),
    "feedback_1": (0.05, 3.0),
    "feedback_2": (0.05, 3.0),
    "weights": (0.01, 0.5),
    "biases": (0.01, 0.5),
}
"""The ranges of the settings, which are log-uniform between these ends. `feedback_1` is the bound of B1."""
NAMES = {
    "fa3": ("rate", "feedback_2", "weights", "biases"),
    "fa4": tuple(RANGES),
    **dict.fromkeys(("bp3", "bp4", "shallow3"), ("rate", "weights", "biases")),
}
"""The settings that a curve has."""
SHALLOW_RATE = (1e-4, 1e-2)
"""The range of the rate of shallow learning, which diverges at higher ones."""
TEACHER_RANGES = {"scale_0": (0.05, 1.0), "scale_1": (0.1, 1.5), "scale_2": (0.1, 1.5), "bias": (0.05, 2.0)}
AFFINE = (3e-3, 8e-3)
"""The NSE of the best affine map, between which a teacher is accepted: the published curves start to level there."""
SHALLOW = (0.09, 0.20)
"""The level of shallow learning, a third of the share of the targets' power that varies, between which it is accepted:
it is 0.127 in the paper."""
TEST_EXAMPLES = 5000
SEEDS = 20
"""The seeds of each setting of `--best`."""


class Teacher(NamedTuple):
    """A teacher: the seed that draws it, and the bounds of its weights and biases."""

    seed: int
    scale_0: float
    scale_1: float
    scale_2: float
    bias: float

    def task(self, examples: int) -> Task:
        """Returns the task of imitating it."""
        return nonlinear(
            seed=self.seed,
            train_examples=examples,
            test_examples=TEST_EXAMPLES,
            teacher_scales=[self.scale_0, self.scale_1, self.scale_2],
            teacher_bias=self.bias,
            teacher_bias_distribution="uniform",
            input_scale=1.0,
            scale_to_unit=False,
        )


def power(targets: np.ndarray | jax.Array) -> float:
    """Returns the mean power of targets, by which NSE is normalised."""
    return float(np.mean(np.sum(np.square(targets), -1)))


def affine_nse(task: Task) -> float:
    """Returns the NSE of the best affine map."""
    inputs, targets = (np.asarray(part) for part in task.test)
    padded = np.pad(inputs, ((0, 0), (0, 1)), constant_values=1)
    residuals = targets - padded @ np.linalg.lstsq(padded, targets, rcond=None)[0]
    return float(np.mean(np.sum(np.square(residuals), -1))) / power(task.train.targets)


def shallow_level(task: Task) -> float:
    """Returns the NSE that readouts of a random hidden layer of 20 units come to, of 30 inputs."""
    return float(np.asarray(task.train.targets).var(0).sum()) / power(task.train.targets) / 3


def is_accepted(task: Task) -> bool:
    """Returns whether what is easy to learn of a teacher is as easy as the published curves say.

    Args:
      task: of imitating it.
    """
    return SHALLOW[0] <= shallow_level(task) <= SHALLOW[1] and AFFINE[0] <= affine_nse(task) <= AFFINE[1]


def draw_log(random: np.random.Generator, ends: tuple[float, float], size: int | None = None) -> Any:
    """Returns numbers that are log-uniform between two ends."""
    low, high = np.log(ends)
    return np.exp(random.uniform(low, high, size))


def teacher(index: int) -> Teacher:
    """Returns the teacher of this number: the first accepted one of those drawn with it as the seed."""
    random = np.random.default_rng([index, 0])
    while True:
        drawn = Teacher(index, *(float(draw_log(random, ends)) for ends in TEACHER_RANGES.values()))
        if is_accepted(drawn.task(TEST_EXAMPLES)):
            return drawn


def settings(curve: str, index: int, count: int) -> dict[str, np.ndarray]:
    """Returns random settings of a curve for the teacher of this number, `[count]` of each."""
    random = np.random.default_rng([index, 1 + CURVES.index(curve)])
    ranges = RANGES | ({"rate": SHALLOW_RATE} if curve == "shallow3" else {})
    drawn = {name: draw_log(random, ends, count).astype(np.float32) for name, ends in ranges.items()}
    return {name: drawn[name] for name in NAMES[curve]}


class Here(NamedTuple):
    """What was measured without a run, as far as its provenance goes."""

    environment: Mapping[str, Any]


class Trainer:
    """The program of a curve, which trains any settings on any teacher."""

    def __init__(self, curve: str, examples: int):
        words = [f"experiment=lillicrap2014/task3_{curve}", "seeds=1", "probe=0", f"task.train_examples={examples}"]
        self.job: Job = compose(parse([*words, "checkpoint=false"])).runs[0].job
        self.points = published("fig2d")["examples"]
        self.points = self.points[self.points <= examples].astype(int)
        self.published = published("fig2d")[curve][: len(self.points)]  # NaN where it could not be read
        self._programs: dict[int, Program] = {}

    def _make_learner(self, numbers: Numbers) -> Learner:
        scales = [numbers[name] for name in ("feedback_1", "feedback_2") if name in numbers]
        feedback: dict[str, Any] = {"feedback.scale": scales if len(scales) > 1 else scales[0]} if scales else {}
        return self.job.make_learner(
            {
                "optimizer.learning_rate": numbers["rate"],
                "architecture.init_scale": numbers["weights"],
                "architecture.bias_scale": numbers["biases"],
                **feedback,
            }
        )

    def nse(self, task: Task, numbers: dict[str, np.ndarray], seeds: Sequence[int]) -> np.ndarray:
        """Returns the test NSE at the published points, `[settings, points]`; settings and seeds are in pairs."""
        count, job = len(seeds), self.job
        if count not in self._programs:
            devices = distributed.devices_for(job.devices, count, 1)
            vmapped = is_vmapped(job.rule, job.network, devices[0])
            self._programs[count] = make_program(self._make_learner, job.task, devices, 1, vmapped)
        program = self._programs[count]
        placed = program.seed_sharding
        of_seeds, values = distributed.device_put((np.asarray(seeds, np.int32), numbers), placed)
        data = jax.device_put(Data(task.train, task.test, None), jax.tree.leaves(program.data())[0].sharding)
        states, losses, done = program.init(of_seeds, values), [], np.int32(0)
        for point in self.points:
            states = program.train(states, of_seeds, done, np.int32(point), data)
            evaluation, states = program.evaluate(states, of_seeds, np.int32(point), data)
            losses.append(evaluation.with_nan()["test_loss"])
            done = np.int32(point)
        return 2 * np.stack(losses, 1) / power(task.test.targets)

    def distance(self, nse: np.ndarray) -> np.ndarray:
        """Returns the distance of curves `[settings, points]` to the published one; infinite if one diverged."""
        with np.errstate(all="ignore"):
            read = np.isfinite(self.published)
            distances = np.mean(np.abs(np.log(nse[:, read] / self.published[read])), 1)
        return np.where(np.isfinite(distances), distances, np.inf)


def search(
    path: Path,
    teachers: Sequence[int],
    curves: Sequence[str],
    count: int,
    examples: int,
) -> None:
    """Trains the settings of these teachers and curves that a table of settings lacks, and adds them to it."""
    trainers: dict[str, Trainer] = {}
    for index in teachers:
        for curve in curves:
            if any((row["curve"], row["teacher"]) == (curve, str(index)) for row in read_rows(path)):
                continue
            trainer = trainers.setdefault(curve, Trainer(curve, examples))
            drawn, numbers = teacher(index), settings(curve, index, count)
            nse = trainer.nse(drawn.task(examples), numbers, [0] * count)
            rows = [
                {"curve": curve, "teacher": index}
                | {f"teacher_{name}": f"{value:.6g}" for name, value in drawn._asdict().items() if name != "seed"}
                | {name: f"{numbers[name][i]:.6g}" if name in numbers else "" for name in RANGES}
                | {f"nse_{point}": f"{value:.3e}" for point, value in zip(trainer.points, nse[i], strict=True)}
                | {"distance": f"{distance:.4f}"}
                for i, distance in enumerate(trainer.distance(nse))
            ]
            _add(path, rows)
            lowest, closest = np.nanmin(nse[:, -1]), min(float(str(row["distance"])) for row in rows)
            print(f"teacher {index}, {curve}: lowest NSE {lowest:.2e}, smallest distance {closest:.2f}", flush=True)


def _add(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Adds rows to a table in one write, so that a kill leaves all of them or none."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if is_new:
            file.write(f"# begun {provenance([Here(environment())])}\n")
            writer.writeheader()
        writer.writerows(rows)


def best(path: Path, out: Path, teachers: int, examples: int) -> None:
    """Trains the best settings of the best teachers with `SEEDS` seeds, and writes a table of the best.

    Args:
      path: of the table of settings.
      out: of the table of the best.
      teachers: how many.
      examples: that each setting learns from.
    """
    by_case: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in read_rows(path):
        by_case.setdefault((row["teacher"], row["curve"]), []).append(row)
    end = f"nse_{examples}"

    def lowest(rows: list[dict[str, str]], key: str) -> dict[str, str]:
        return min(rows, key=lambda row: float(row[key]) if np.isfinite(float(row[key])) else np.inf)

    whole = dict.fromkeys(name for name, _ in by_case if all((name, curve) in by_case for curve in COMPARED))
    together = {n: sum(float(lowest(by_case[n, c], "distance")["distance"]) for c in COMPARED) for n in whole}
    trainers: dict[str, Trainer] = {}
    results = []
    for name in sorted(together, key=together.__getitem__)[:teachers]:
        task = teacher(int(name)).task(examples)
        for choice, key in (("closest", "distance"), ("lowest", end)):
            ends, chosen = {}, {c: lowest(by_case[name, c], key) for c in CURVES if (name, c) in by_case}
            for curve, row in chosen.items():
                numbers = {n: np.full(SEEDS, float(row[n]), np.float32) for n in RANGES if row[n]}
                trainer = trainers.setdefault(curve, Trainer(curve, examples))
                ends[curve] = trainer.nse(task, numbers, range(SEEDS))[:, -1]
            ratio = float(ends["fa4"].mean() / ends["fa3"].mean())
            p_value = float(stats.ttest_rel(ends["fa4"], ends["fa3"]).pvalue)
            result = {"teacher": name, "settings": choice, "distance": f"{together[name]:.3f}", "seeds": SEEDS}
            result |= {curve: f"{ends[curve].mean():.3e}" if curve in ends else "" for curve in CURVES}
            results.append(({**result, "ratio": f"{ratio:.3f}", "p": f"{p_value:.1e}"}, [Here(environment())]))
            print(results[-1][0], flush=True)
    if results:
        write_table(out, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=int, default=32, help="how many, from the first")
    parser.add_argument("--teacher", type=int, metavar="NUMBER", help="this one alone")
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=COMPARED, help="default: those of FA")
    parser.add_argument("--settings", type=int, default=64, help="of each curve, for each teacher")
    parser.add_argument("--examples", type=int, default=400_000, help="that each setting learns from")
    parser.add_argument(
        "--best", type=int, metavar="N", help="train the best of N teachers with 20 seeds, search nothing"
    )
    add_output_options(parser)
    options = parser.parse_args()
    of_search = "teachers", "teacher", "curves", "settings"
    given = [name for name in of_search if getattr(options, name) != parser.get_default(name)]
    if given and options.best is not None:
        parser.error(f"--{given[0]} has no effect with --best")
    if {"teachers", "teacher"} <= set(given):
        parser.error("--teachers has no effect with --teacher")
    into = results_folder(options, HERE)
    table = into / "search.csv"
    if options.best is None:
        numbers = range(options.teachers) if options.teacher is None else [options.teacher]
        search(table, numbers, options.curves, options.settings, options.examples)
    elif table.exists():
        best(table, into / "best.csv", options.best, options.examples)
    else:
        parser.error(f"{table} does not exist; search first")


if __name__ == "__main__":
    main()
