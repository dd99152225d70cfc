"""Measures how fast fa_jax trains, starts and evaluates, and how fast PyTorch and BioTorch train the same networks.

    python -m experiments.speed.benchmark [section ...] [--repeats 7] [--out FOLDER]
    python -m experiments.speed.benchmark --table

The README beside this file describes the measurements and how they are kept fair. Every section replaces its rows in
the CSV; ratios and requirements come first.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.common import add_output_options, read_rows, results_folder, without_cache
from experiments.speed import limit, products
from experiments.speed.record import Row, record, table

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))
EPOCH = 60000 // 64
"""The steps of an epoch of MNIST with batches of 64."""
FIG2D = ("shallow3", "bp3", "fa3", "bp4", "fa4")
RULES = ("bp", "fa", "dfa")
PEERS = {"bp": "PyTorch BP", "fa": "BioTorch FA", "dfa": "BioTorch DFA"}
OPTIMIZER = "a step of the optimizer alone"
LONG_REPEATS = 3
"""The largest number of repeats of a measurement that takes a minute."""


class Contestant(NamedTuple):
    """A training loop that is measured in a process of its own."""

    spec: dict
    """The argument of `contestants.main`."""
    steps: int
    """The number of steps of a block."""
    seeds: int = 1


def race(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, list[float]]:
    """Returns the seed-steps per second of each contestant in every round.

    Each contestant has a process. In a round, they train one block each, one after another, while the others wait.
    """
    rates = {name: [] for name in contestants}
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(contestant)) for name, contestant in contestants.items()}
        for number in range(1 + repeats):
            for name, train in workers.items():
                seconds = train(contestants[name].steps)
                if number:  # the first round warms up
                    rates[name].append(contestants[name].steps * contestants[name].seeds / seconds)
            print(f"round {number} of {repeats}", file=sys.stderr)
    return rates


@contextlib.contextmanager
def _worker(contestant: Contestant) -> Iterator[Callable[[int], float]]:
    """Yields a contestant in a process of its own, as a function `steps -> seconds`."""
    # Waiting threads of OpenMP sleep instead of spinning.
    passive = {} if contestant.spec.get("spin") else {"OMP_WAIT_POLICY": "PASSIVE"}
    spec = {key: value for key, value in contestant.spec.items() if key != "spin"}
    command = [sys.executable, "-m", "experiments.speed.contestants", json.dumps(spec)]
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        process = subprocess.Popen(command, **pipes, text=True, bufsize=1, env={**without_cache(), **passive})

        def train(steps: int) -> float:
            assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - pipes
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{steps}\n")
            reply = process.stdout.readline()
            if not reply:
                errors.seek(0)
                raise SystemExit(f"{spec} failed:\n{errors.read()}")
            return float(reply)

        try:
            train(0)  # returns when the contestant is set up and compiled
            yield train
        finally:
            process.kill()
            process.wait()


def mnist(repeats: int) -> Iterator[Row]:
    """Measures 784-1000-10 and 784-1000-1000-1000-10 on data of MNIST's shape, against PyTorch and BioTorch."""
    yield from _mnist([1000], ("bp", "fa", "dfa"), [1, 4], {"fa": "<= 1.05", "dfa": "<= 1.05"}, repeats)
    yield from _mnist([1000] * 3, ("bp",), [1], {"dfa": "<= 0.9"}, repeats)


def _mnist(
    hidden: list[int], peers: Sequence[str], counts: list[int], required: dict[str, str], repeats: int
) -> Iterator[Row]:
    contestants = {}
    for seeds in counts:
        for rule in RULES:
            overrides = ["task=mnist", f"rule={rule}", f"architecture.hidden={hidden}", "architecture.activation=tanh"]
            overrides += ["batch_size=64", "optimizer.learning_rate=0.1", f"seeds={seeds}"]
            spec = {"loop": "FaJax", "overrides": overrides, "synthetic": {}}
            contestants[f"fa_jax {rule.upper()}, {_count(seeds, 'seed')}"] = Contestant(spec, EPOCH // seeds, seeds)
    for rule in peers:
        for threads, spin in {(1, False), (len(CORES), False), (len(CORES), True)}:
            waits = "spinning" if spin else "passive"
            spec = {"loop": "Torch", "hidden": hidden, "rule": rule, "threads": threads, "spin": spin}
            contestants[f"{PEERS[rule]}, {_count(threads, 'thread')}, {waits}"] = Contestant(spec, EPOCH)
    contestants = dict(sorted(contestants.items()))
    rates = race(contestants, repeats)
    net = "784-" + "".join(f"{width}-" for width in hidden) + "10"

    one_seed = {rule: rates[f"fa_jax {rule.upper()}, 1 seed"] for rule in RULES}
    best = {}
    for rule in peers:
        variants = [name for name in rates if name.startswith(PEERS[rule])]
        best[rule] = max(variants, key=lambda name: statistics.median(rates[name]))
    for rule, ours in one_seed.items():
        for peer in best.values():
            yield Row(f"{net}: steps/s of fa_jax {rule.upper()} over {peer}", _ratios(ours, rates[peer]), "", ">= 2")
    for rule in ("fa", "dfa"):
        ratios = _ratios(one_seed["bp"], one_seed[rule])
        yield Row(f"{net}: time of fa_jax {rule.upper()} over fa_jax BP", ratios, "", required.get(rule, ""))
    for name, values in rates.items():
        yield Row(f"{net}: {name}", values, "seed-steps/s")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number > 1)


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Returns the ratio of each round, so that a slow phase of the machine affects both sides."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def fig2d(repeats: int) -> Iterator[Row]:
    """Measures Fig 2d of Lillicrap et al. (2014): its total time, and the speed at batch 1 on one core and on all."""
    experiments = ",".join(f"lillicrap2014/task3_{curve}" for curve in FIG2D)
    whole = []
    for _ in range(min(repeats, LONG_REPEATS)):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            _fa_jax(folder, "--multirun", f"experiment={experiments}", f"hydra.sweep.dir={folder}/sweep")
            whole.append(time.perf_counter() - began)
    yield Row("the whole of Fig 2d, five curves x 20 seeds x 400 000 examples", whole, "s", "< 60")

    contestants = {}
    for curve in FIG2D:
        for cores in {1, len(CORES)}:
            overrides = [f"experiment=lillicrap2014/task3_{curve}", f"devices={cores}"]
            spec = {"loop": "FaJax", "overrides": overrides, "cores": CORES[:cores]}
            contestants[f"{curve}, {_count(cores, 'core')}"] = Contestant(spec, 50000 * cores, 20)
    rates = race(dict(sorted(contestants.items())), repeats)
    for name, values in rates.items():
        required = ">= 1e6" if name.endswith(" 1 core") else ""
        yield Row(f"batch 1, 20 seeds: {name}", values, "seed-steps/s", required)


def start(repeats: int) -> Iterator[Row]:
    """Measures the seconds from the start of a process to the record of its first step, without a compilation cache."""
    runs = {"the default task": ["evaluations=2000"]}
    if "TFDS_DATA_DIR" in os.environ:
        runs["task=mnist"] = ["task=mnist", "architecture.hidden=[1000]", f"evaluations={10 * EPOCH}"]
    seconds = {name: [] for name in runs}
    for number in range(1 + repeats):
        for name, overrides in runs.items():
            duration = _first_step(overrides)
            if number:  # the first start reads everything from disk, and may have to decode the images
                seconds[name].append(duration)
    for name, values in seconds.items():
        yield Row(f"start to first training step, {name}", values, "s", "< 10")


def _first_step(overrides: Sequence[str]) -> float:
    """Starts `fa-jax` with an evaluation after every step, and returns the seconds until the first is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder, "run", "metrics.csv")
        began = time.perf_counter()
        with _starting(folder, *overrides, f"hydra.run.dir={folder}/run") as process:
            while not _has_step(metrics, "1"):
                if process.poll() is not None:
                    raise SystemExit(f"fa-jax {' '.join(overrides)} ended before its first step")
                time.sleep(0.01)
            return time.perf_counter() - began


def _has_step(metrics: Path, step: str) -> bool:
    if not metrics.exists():
        return False
    rows = [line.split(",") for line in metrics.read_text().splitlines()]
    return any(len(row) > 1 and row[1] == step for row in rows)


def overhead(repeats: int) -> Iterator[Row]:
    """Measures the share of a run's time that angles and evaluations take."""
    runs = {"rule=fa": ["rule=fa"]}
    if "TFDS_DATA_DIR" in os.environ:
        runs["rule=fa task=mnist"] = ["rule=fa", "task=mnist"]
    shares = {name: [] for name in runs}
    for _ in range(repeats):
        for name, overrides in runs.items():
            cost = _cost(overrides)
            evaluating = cost["evaluation_seconds"]
            shares[name].append(100 * evaluating / (evaluating + cost["train_seconds"]))
    for name, values in shares.items():
        yield Row(f"angles and evaluations, fa-jax {name}", values, "% of training and evaluating", "< 10")


def measures(repeats: int) -> Iterator[Row]:
    """Measures what the measures on the probe batch take on MNIST, in percent of the time of training.

    The runs of a round differ in the measures alone; what evaluations take without a probe batch is subtracted.
    """
    kinds = {"the default measures": [], "all measures": ["measure=[sign_agreement,rho,null_angle]"]}
    shares = {(rule, kind): [] for rule in ("fa", "dfa") for kind in kinds}
    for _ in range(repeats):
        for rule in ("fa", "dfa"):
            plain = _cost(["task=mnist", f"rule={rule}", "probe=0"])
            for kind, more in kinds.items():
                cost = _cost(["task=mnist", f"rule={rule}", *more])
                seconds = cost["evaluation_seconds"] - plain["evaluation_seconds"]
                shares[rule, kind].append(100 * seconds / plain["train_seconds"])
    for (rule, kind), values in shares.items():
        required = "<= 5" if kind == "the default measures" else ""
        yield Row(f"{kind}, fa-jax rule={rule} task=mnist", values, "% of training", required)


def _cost(overrides: Sequence[str]) -> dict[str, float]:
    """Trains a run and returns its cost as `summary.json` has it."""
    with tempfile.TemporaryDirectory() as folder:
        _fa_jax(folder, *overrides, f"hydra.run.dir={folder}/run")
        return json.loads(Path(folder, "run", "summary.json").read_text())["cost"]


@contextlib.contextmanager
def _starting(folder: str, *arguments: str) -> Iterator[subprocess.Popen]:
    """Yields a running `fa-jax`, which is killed in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fa_jax", *arguments], cwd=folder, stdout=subprocess.DEVNULL, env=without_cache()
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _fa_jax(folder: str, *arguments: str) -> None:
    with _starting(folder, *arguments) as process:
        if process.wait():
            raise SystemExit(f"fa-jax {' '.join(arguments)} ended with exit code {process.returncode}")


def devices(repeats: int) -> Iterator[Row]:
    """Measures twenty seeds of small tasks on all cores: with one device for each core, the default, or one for all."""
    for task, steps in (("linear", 20000), ("digits", 3000), ("mnist", 200)):
        contestants = {}
        for count in (1, len(CORES)):
            spec = {"loop": "FaJax", "overrides": [f"task={task}", "rule=fa", "seeds=20", f"devices={count}"]}
            if task == "mnist":
                spec["synthetic"] = {}
            contestants[f"task={task}, 20 seeds, {_count(count, 'device')}"] = Contestant(spec, steps, 20)
        rates = race(contestants, repeats)
        one_device, all_devices = rates.values()
        yield Row(
            f"task={task}: rate of a device for each core over one for all",
            _ratios(all_devices, one_device),
            "",
            ">= 1",
        )
        for name, values in rates.items():
            yield Row(name, values, "seed-steps/s")


def family(repeats: int) -> Iterator[Row]:
    """Measures rules against BP, one seed each: dense, a hundred layers deep, convolutional."""
    nets = {
        "3x1000": (["architecture.hidden=[1000,1000,1000]"], 300),
        "100x240": ([f"architecture.hidden={[240] * 100}"], 60),
        "conv32x5p2-conv64x5p2-128": (
            ["architecture=cnn", "architecture.topology=conv32x5p2-conv64x5p2-128", "architecture.activation=tanh"],
            20,
        ),
    }
    required = {("dfa", "3x1000"): "<= 0.85", ("dfa", "100x240"): "<= 0.8"}
    for net, (network, steps) in nets.items():
        convolutional = net.startswith("conv")
        rules = ("bp", "fa", "dfa") if convolutional else ("bp", "fa", "usf", "kolen_pollack", "dfa")
        contestants = {}
        for rule in rules:
            overrides = ["task=mnist", f"rule={rule}", *network, "optimizer=sgd", "batch_size=64", "seeds=1"]
            if not convolutional:
                overrides.append("architecture.activation=tanh")
            contestants[rule] = Contestant({"loop": "FaJax", "overrides": overrides, "synthetic": {}}, steps)
        rates = race(contestants, repeats)
        for rule in rules[1:]:
            bound = required.get((rule, net), "<= 1.15" if convolutional and rule == "fa" else "<= 1.1")
            yield Row(f"{net}: time of {rule} over bp", _ratios(rates["bp"], rates[rule]), "", bound)
        for rule, values in rates.items():
            yield Row(f"{net}: {rule}", values, "steps/s")
    yield from _against_products(repeats)


def _against_products(repeats: int) -> Iterator[Row]:
    """Measures the rules whose matrix products are counted in `products.py`, against BP and against these counts."""
    hidden, batch, steps = [1000] * 3, 64, 300
    activations = {"scff": "relu", "equilibrium_propagation": "shifted_sigmoid"}
    over_bp = {rule: products.over_bp(rule, (784, *hidden, 10), batch) for rule in products.OF_RULES}
    contestants = {}
    for rule, ratio in {"bp": 1.0, **over_bp}.items():
        overrides = ["task=mnist", f"rule={rule}", f"architecture.hidden={hidden}", f"batch_size={batch}", "seeds=1"]
        overrides += ["optimizer=sgd", f"architecture.activation={activations.get(rule, 'tanh')}"]
        spec = {"loop": "FaJax", "overrides": overrides, "synthetic": {}}
        contestants[rule] = Contestant(spec, max(1, round(steps / ratio)))
    rates = race(contestants, repeats)
    for rule, ratio in over_bp.items():
        quantity = f"3x1000: time of {rule} over bp; {ratio:.2f} by products"
        yield Row(quantity, _ratios(rates["bp"], rates[rule]), "", f"<= {1.2 * ratio:.2f}")


def nokland(repeats: int) -> Iterator[Row]:
    """Measures 784-800-800-10 with Nøkland's settings (RMSprop, batch 64), against PyTorch's BP with the same."""
    overrides = ["experiment=nokland2016/mnist", "architecture.hidden=[800,800]", "seeds=1"]
    contestants = {
        f"fa_jax {rule.upper()}": Contestant(
            {"loop": "FaJax", "overrides": [*overrides, f"rule={rule}"], "synthetic": {}}, EPOCH
        )
        for rule in ("bp", "dfa")
    }
    rates: dict[str, list[float]] = {}
    name = "784-800-800-10"
    yield from _against(name, contestants, "TorchNokland", [800, 800], 64, EPOCH, ">= 2", repeats, rates)
    for contestant, values in rates.items():
        yield Row(f"{name}: an epoch of {contestant}", [EPOCH / value for value in values], "s")


def forward_forward(repeats: int) -> Iterator[Row]:
    """Measures Forward-Forward, 784-3x1000, batch 100, against the same arithmetic in PyTorch, and against our BP."""
    shared = ["task=mnist", "architecture.hidden=[1000,1000,1000]", "architecture.activation=relu", "batch_size=100"]
    kinds = {
        "fa_jax FF, uniform negatives": ["rule=forward_forward", "rule.negatives=uniform"],
        "fa_jax FF, hard negatives": ["rule=forward_forward"],
        "fa_jax BP": ["rule=bp", "optimizer=momentum"],
    }
    contestants = {
        name: Contestant({"loop": "FaJax", "overrides": [*kind, *shared, "seeds=1"], "synthetic": {}}, 200)
        for name, kind in kinds.items()
    }
    rates: dict[str, list[float]] = {}
    rows = _against("784-3x1000", contestants, "TorchForwardForward", [1000] * 3, 100, 200, ">= 2.5", repeats, rates)
    yield from (row for row in rows if "fa_jax BP over" not in row.quantity)  # another algorithm
    bp, ff = rates["fa_jax BP"], rates["fa_jax FF, hard negatives"]
    yield Row("784-3x1000: time of fa_jax FF over fa_jax BP; 1.84 by FLOPs", _ratios(bp, ff), "", "<= 1.84")


def associated_learning(repeats: int) -> Iterator[Row]:
    """Measures associated learning on networks of the authors' shape, against the same arithmetic in PyTorch."""
    for width, batch, steps, required in ((256, 128, 200, ">= 1.5"), (1024, 32, 60, ">= 1")):
        overrides = ["experiment=kao2019/mnist", f"architecture.hidden={[width] * 2}", f"rule.width={width}"]
        overrides += [f"batch_size={batch}", "probe=0", "seeds=1"]
        spec = {"loop": "FaJax", "overrides": overrides, "synthetic": {}}
        name = f"784-2x{width}, batch {batch}"
        rates: dict[str, list[float]] = {}
        ours = {"fa_jax AL": Contestant(spec, steps)}
        yield from _against(name, ours, "TorchAssociatedLearning", [width] * 2, batch, steps, required, repeats, rates)
        milliseconds = [1000 / rate for rate in rates["fa_jax AL"]]
        yield Row(f"{name}: a step of fa_jax AL", milliseconds, "ms", "< 50" if width == 1024 else "")


def _against(
    name: str,
    ours: dict[str, Contestant],
    loop: str,
    hidden: list[int],
    batch: int,
    steps: int,
    required: str,
    repeats: int,
    rates: dict[str, list[float]] | None = None,
) -> Iterator[Row]:
    """Measures some of our loops against a PyTorch loop with the number of threads that is fastest; fills `rates`."""
    contestants = dict(ours)
    for threads, spin in {(1, False), (len(CORES), False), (len(CORES), True)}:
        spec = {"loop": loop, "hidden": hidden, "threads": threads, "spin": spin, "batch_size": batch}
        contestants[f"{loop}, {_count(threads, 'thread')}, {'spinning' if spin else 'passive'}"] = Contestant(
            spec, steps
        )
    rates = {} if rates is None else rates
    rates |= race(dict(sorted(contestants.items())), repeats)
    best = max((peer for peer in rates if peer not in ours), key=lambda peer: statistics.median(rates[peer]))
    for our_name in ours:
        yield Row(f"{name}: steps/s of {our_name} over {best}", _ratios(rates[our_name], rates[best]), "", required)
    for contestant, values in rates.items():
        yield Row(f"{name}: {contestant}", values, "steps/s")


def compiling(repeats: int) -> Iterator[Row]:
    """Measures the seconds that every rule takes to compile for a hundred hidden layers of 240."""
    rules = ("bp", "fa", "dfa", "ifa", "sdfa", "drtp", "usf", "brsf", "frsf", "kolen_pollack", "weight_mirror")
    for rule in (*rules, "direct_kolen_pollack"):
        seconds = []
        for _ in range(min(repeats, LONG_REPEATS)):
            with tempfile.TemporaryDirectory() as folder:
                network = ["task=digits", f"rule={rule}", f"architecture.hidden={[240] * 100}"]
                length = ["seeds=1", "probe=0", "epochs=0.1", "evaluations=1"]
                _fa_jax(folder, *network, *length, f"hydra.run.dir={folder}/run")
                cost = json.loads(Path(folder, "run", "summary.json").read_text())["cost"]
            seconds.append(cost["compile_seconds"])
        yield Row(f"100 hidden layers: compiling {rule}", seconds, "s", "< 10")


def share_of_limit(repeats: int) -> Iterator[Row]:
    """Measures which share of the speed of their bare matrix products training loops reach."""
    one_layer, three, batch = [1000], [1000] * 3, 64
    plain = ["task=mnist", "architecture.activation=tanh", f"batch_size={batch}", "optimizer=sgd", "seeds=1"]
    ff = ["task=mnist", "rule=forward_forward", "architecture.activation=relu", "seeds=1"]
    al = ["experiment=kao2019/mnist", "probe=0", "seeds=1"]
    kinds = {"bp": limit.backpropagation, "fa": limit.backpropagation, "dfa": limit.direct_feedback}
    cases = [
        (rule, hidden, batch, kind, [f"rule={rule}", *plain], 400 // len(hidden) ** 2)
        for hidden in (one_layer, three)
        for rule, kind in kinds.items()
    ]
    cases += [("forward_forward", three, 100, limit.forward_forward, [*ff, "batch_size=100"], 40)]
    cases += [
        (
            "associated_learning",
            [width] * 2,
            rows,
            limit.associated_learning,
            [*al, f"rule.width={width}", f"batch_size={rows}"],
            steps,
        )
        for width, rows, steps in ((256, 128, 60), (1024, 32, 15))
    ]
    for rule, hidden, rows, kind, overrides, steps in cases:
        bare = kind((784, *hidden, 10), rows)
        spec = {"overrides": [*overrides, f"architecture.hidden={hidden}"], "synthetic": {}}
        contestants = {
            "fa_jax": Contestant({"loop": "FaJax", **spec}, steps),
            OPTIMIZER: Contestant({"loop": "OptimizerSteps", **spec}, steps),
            "XLA": Contestant({"loop": "XlaProducts", "products": bare}, steps),
        }
        for spin in (False, True):
            spec = {"loop": "TorchProducts", "products": bare, "threads": len(CORES), "spin": spin}
            contestants[f"PyTorch, {'spinning' if spin else 'passive'}"] = Contestant(spec, steps)
        rates = race(contestants, repeats)
        optimizer = rates.pop(OPTIMIZER)
        best = max((name for name in rates if name != "fa_jax"), key=lambda name: statistics.median(rates[name]))
        name = f"784-{'-'.join(map(str, hidden))}-10, batch {rows}, {rule}"
        yield Row(
            f"{name}: share of the speed of its bare products by {best}",
            _ratios(rates["fa_jax"], rates[best]),
            "",
            ">= 0.85",
        )
        alone = [1 / (1 / product + 1 / step) for product, step in zip(rates[best], optimizer, strict=True)]
        yield Row(
            f"{name}: share of the speed of these products and the optimizer's steps, each alone",
            _ratios(rates["fa_jax"], alone),
            "",
        )
        yield Row(f"{name}: {OPTIMIZER}", [1e3 / value for value in optimizer], "ms")
        flops = sum(product.flops for product in bare) / 1e9
        for contestant, values in rates.items():
            yield Row(f"{name}: {contestant}", [flops * value for value in values], "GFLOP/s")


SECTIONS = {
    "mnist": mnist,
    "fig2d": fig2d,
    "start": start,
    "overhead": overhead,
    "measures": measures,
    "devices": devices,
    "family": family,
    "nokland": nokland,
    "forward_forward": forward_forward,
    "associated_learning": associated_learning,
    "compiling": compiling,
    "limit": share_of_limit,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"some of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; the median is taken over them")
    add_output_options(parser)
    parser.add_argument("--table", action="store_true", help="print the CSV as Markdown, and measure nothing")
    chosen = parser.parse_args()
    unknown = [section for section in chosen.sections if section not in SECTIONS]
    if unknown:
        parser.error(f"a section must be one of {', '.join(SECTIONS)}; got {unknown[0]}")
    if chosen.repeats < 1:
        parser.error(f"--repeats must be at least 1; got {chosen.repeats}")
    out = (chosen.out or HERE if chosen.table else results_folder(chosen, HERE)) / "measured.csv"
    if not chosen.table:
        for section in chosen.sections or SECTIONS:
            record(section, list(SECTIONS[section](chosen.repeats)), out)
    shown = [row for row in read_rows(out) if not chosen.sections or row["section"] in chosen.sections]
    print(table(shown) or f"nothing is recorded in {out}")


if __name__ == "__main__":
    main()
