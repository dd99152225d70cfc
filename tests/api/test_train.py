"""`fa_jax.train` trains what the command line trains, takes Python objects, prints nothing, and leaves no trace."""

import functools
import os
import subprocess
import sys

import flax.linen as nn
import hydra
import jax
import numpy as np
import optax
import pytest
import yaml
from flax import traverse_util
from hydra.core.global_hydra import GlobalHydra

import fa_jax
from fa_jax.cli.digests import digest_of
from fa_jax.cli.main import main
from fa_jax.networks.mlp import mlp
from fa_jax.primitives import Hidden
from fa_jax.rules.fa import fa
from tests.conftest import assert_same_runs, assert_trees_equal, layerwise

SHORT = {"epochs": 1, "evaluations": 2, "seeds": 2, "probe": 0}


class Net(nn.Module):
    width: int = 6

    @nn.compact
    def __call__(self, x):
        h = Hidden()(nn.tanh(nn.Dense(self.width)(x)))
        return nn.Dense(3)(h)


@functools.cache
def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 5)).astype(np.float32)
    return x, (x @ random.normal(size=(5, 3))).argmax(1)


@pytest.fixture(autouse=True)
def _empty_folder(folder):
    """Makes `folder` the working folder of every test."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two recorded runs of names alone."""
    folder = tmp_path_factory.mktemp("api") / "sweep"
    return fa_jax.train(task="digits", rule=["bp", "fa"], folder=folder, **SHORT)


def test_a_sweep_from_python_is_bit_for_bit_that_of_the_command_line_and_can_be_resumed_there(runs, folder):
    words = [f"{name}={value}" for name, value in SHORT.items()]
    assert main(["--multirun", "task=digits", "rule=bp,fa", *words, f"hydra.sweep.dir={folder}/typed"]) == 0
    for run, name in zip(runs, ("0_bp", "1_fa"), strict=True):
        assert run.folder.name == name
        assert_same_runs(run.folder, folder / "typed" / name)
        assert run.config == yaml.safe_load((folder / "typed" / name / "config.yaml").read_text())
    assert main([f"resume={runs[0].folder.parent}"]) == 0


def test_nothing_is_printed_and_nothing_is_left_without_a_record(capfd, folder):
    (run,) = fa_jax.train(task="digits", rule="fa", record=False, **SHORT)
    assert capfd.readouterr() == ("", "")
    assert not list(folder.iterdir())
    assert not run.folder.exists()
    assert run.params["readout"]["kernel"].shape == (2, 100, 10)
    assert fa_jax.Runs([run]).frame()["test_error"].notna().all()


def test_objects_train_as_the_same_names_do(runs):
    x, y = runs[0].task.train
    task = fa_jax.arrays(x, y, *runs[0].task.test)  # of other pixel values than digits has
    named = fa_jax.train(task=task, rule="fa", **SHORT, record=False)[0]

    def my_rule(network, loss, *, init_feedback):
        return fa(network, loss, init_feedback=init_feedback)

    _, given = fa_jax.train(
        task=task,
        network=lambda shape, outputs: named.job.network,
        rule=["bp", my_rule],
        loss=named.job.loss,
        optimizer=optax.sgd(0.1),
        feedback="layerwise",
        **SHORT,
        record=False,
    )
    assert_trees_equal((given.params, given.feedback), (named.params, named.feedback))
    assert given.record.choices["rule"] == "my_rule"
    assert given.record.choices["task"] == "arrays"


def test_a_record_of_objects_opens_with_the_same_objects_alone(folder):
    objects = {"task": data(), "network": Net(7), "rule": functools.partial(fa, init_feedback=layerwise())}
    (run,) = fa_jax.train(**objects, optimizer=optax.adam(0.01), **SHORT, folder="mine")
    assert run.config["rule"]["_target_"] == "fa_jax.api.given"
    with pytest.raises(
        fa_jax.BadOption, match=r"cannot hold \(task: arrays, rule: fa, optimizer\); fa_jax.load\("
    ) as all:
        fa_jax.load("mine")
    assert "fa_jax.load(folder, task=..., rule=..., optimizer=...) opens it with them; and load(" in str(all.value)
    assert "calls tests.api.test_train.Net, which is none of" in str(all.value)
    with pytest.raises(fa_jax.BadOption, match=r"hold \(rule: fa\); fa_jax.load\(folder, task=..., network=..., rule="):
        fa_jax.load("mine", task=data(), network=Net(7), optimizer=optax.adam(0.01))
    with pytest.raises(fa_jax.BadOption, match="task is another object than the arrays of the run"):
        fa_jax.load("mine", **{**objects, "task": (data()[0] + 1, data()[1])}, optimizer=optax.adam(0.01))
    with pytest.raises(fa_jax.BadOption, match="optimizer is another object"):
        fa_jax.load("mine", **objects, optimizer=optax.adam(0.02))
    again = fa_jax.load("mine", **objects, optimizer=optax.adam(0.01))
    assert_trees_equal(again.params, run.params)
    np.testing.assert_array_equal(again.predict(data()[0]), run.predict(data()[0]))


def test_objects_that_can_be_imported_are_recorded_by_name(folder):
    optimizer = "momentum"
    (run,) = fa_jax.train(task=data(), network=Net(4), rule="bp", optimizer=optimizer, **SHORT, record=False)
    node = run.config["architecture"]
    assert node == {
        "_target_": "fa_jax.networks.module.module",
        "_partial_": True,
        "module": "tests.api.test_train.Net",
        "arguments": {"width": 4},
    }


SPARSE = {"init": "fan_normal", "init_scale": 1.0, "bias_init": "constant", "bias_scale": 0.0, "biases": True}
SPARSE |= {"hidden": [20], "activation": "tanh", "norm": "batch", "dropout": 0.0, "input_dropout": 0.0, "density": 0.3}


@pytest.mark.parametrize("made", ["partial", "lambda"])
def test_removed_connections_and_running_statistics_of_given_objects_do_not_take_steps(made):
    network = functools.partial(mlp, **SPARSE)
    network = network if made == "partial" else lambda shape, outputs: mlp(shape, outputs, **SPARSE)
    optimizer = optax.adamw(0.01, weight_decay=10.0)
    arguments = {"task": data(), "network": network, "rule": "bp", "optimizer": optimizer, "record": False}
    (run,) = fa_jax.train(**arguments, **SHORT, overrides=["batch_size=10"])
    assert 0.5 < np.mean(run.params["stages_0"]["linear"]["kernel"] == 0) < 0.9
    job = run.job
    params = jax.tree.map(lambda leaf: leaf[0], run.params)
    state = job.learner.optimizer.init(params)
    deltas, _ = job.learner.optimizer.update(jax.tree.map(np.zeros_like, params), state, params)
    steps = {path[-1]: bool(np.any(leaf)) for path, leaf in traverse_util.flatten_dict(deltas["stages_0"]).items()}
    assert (steps["mean"], steps["var"], steps["scale"], steps["kernel"]) == (False, False, True, True)


class Normed(nn.Module):
    """Marks no hidden layer."""

    @nn.compact
    def __call__(self, x):
        h = nn.BatchNorm(use_running_average=not self.has_rng("dropout"))(nn.Conv(2, (3,))(x[..., None]))
        return nn.Dense(3)(h.reshape(len(x), -1))


def test_a_single_example_is_normalised_over_the_positions_of_a_layer_that_is_not_marked():
    (run,) = fa_jax.train(task=data(), network=Normed(), rule="bp", record=False, **SHORT, overrides=["batch_size=1"])
    assert not run.record.diverged


def test_sparse_feedback_that_learns_stays_sparse():
    sparse = ["architecture.hidden=[40]", "feedback.density=0.3"]
    (run,) = fa_jax.train(task="digits", rule="kolen_pollack", **SHORT, record=False, overrides=sparse)
    feedback = np.asarray(run.feedback["readout"])
    start = jax.vmap(lambda seed: run.job.learner.rule.init(jax.random.key(seed))[1]["readout"])(np.arange(2))
    assert 0.6 < np.mean(feedback == 0) < 0.8
    np.testing.assert_array_equal(feedback != start, start != 0)


def test_lists_of_names_and_objects_train_every_combination(folder):
    networks = [Net(4), Net(5)]
    runs = fa_jax.train(task=data(), network=networks, rule=["bp", "dfa"], **SHORT, record=False)
    widths = [run.params["Dense_0"]["kernel"].shape[-1] for run in runs]
    assert widths == [4, 4, 5, 5]
    assert [run.record.choices["rule"] for run in runs] == ["bp", "dfa"] * 2
    assert len(set(runs.labels)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "digit"}, "^task must be one of .*; got 'digit'; did you mean 'digits'"),
        ({"rule": 3}, "^rule must be a name, or a function"),
        ({"optimizer": object()}, "^optimizer must be a name, or an optax.GradientTransformation; got object"),
        ({"epochs": -1}, "^epochs must be a finite number above 0; got -1"),
        ({"nonsense": 1}, "^nonsense is no option"),
        ({"output": "x"}, "^output is no option; did you mean 'folder'?"),
        ({"networks": Net()}, "^networks is no option; did you mean 'network'?"),
        ({"progres": False}, "^progres is no option; did you mean 'progress'?"),
        ({"learning_rate": 1}, "^learning_rate is no option; did you mean 'optimizer.learning_rate'?"),
        ({"overrides": ["hydra/launcher=cores"]}, "^hydra/launcher=cores has no effect from Python"),
        ({"overrides": ["--cfg", "job"]}, "^overrides must be options of runs"),
        ({"record": False, "folder": "x"}, "^folder has no effect with record=False"),
        (
            {"task": "digits", "rule": lambda network, loss, *, init_feedback: None},
            "needs a choice of it, such as feed",
        ),
        ({"task": data, "network": Net()}, "^task must be a name, a fa_jax.core.Task, or arrays"),
        ({"config_dir": "nowhere"}, "^config_dir must be a folder of configs; got 'nowhere'"),
        ({"network": [], "rule": "bp"}, "^network must have at least one entry"),
        ({"rule": ["bp", "shallow"], "feedback": "direct"}, "^feedback has no effect: none of the rules has it, bp, "),
    ],
)
def test_a_mistake_is_a_value_error_of_one_line(folder, arguments, message):
    with pytest.raises(ValueError, match=message) as raised:
        fa_jax.train(**arguments)
    assert isinstance(raised.value, fa_jax.BadOption)
    assert "\n" not in str(raised.value)
    assert not list(folder.iterdir())


def test_a_folder_of_configs_that_is_not_trusted_is_named_as_it_was_given(folder):
    (folder / "own" / "rule").mkdir(parents=True)
    (folder / "own" / "rule" / "mine.yaml").write_text("_target_: os.mkdir\npath: taken\n")
    with pytest.raises(fa_jax.BadOption, match=r"config from config_dir='own' calls os.mkdir, .*; trust=.PACKAGE. or"):
        fa_jax.train(rule="mine", config_dir="own")


def test_hydra_and_jax_are_as_they_were(folder):
    (folder / "own").mkdir()
    (folder / "own" / "mine.yaml").write_text("a: 1\n")
    settings = dict(jax.config.values)
    with hydra.initialize_config_dir(str(folder / "own"), version_base="1.3"):
        state = GlobalHydra.instance().hydra
        fa_jax.train(task=data(), network=Net(), rule="bp", **SHORT, record=False)
        with pytest.raises(fa_jax.BadOption):
            fa_jax.train(task="digit")
        assert GlobalHydra.instance().hydra is state
        assert hydra.compose("mine") == {"a": 1}
    assert dict(jax.config.values) == settings


def test_importing_fa_jax_imports_no_jax():
    code = "import sys, fa_jax; assert 'train' in dir(fa_jax); print([m for m in ('jax', 'hydra') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout == "[]\n"


@pytest.mark.slow
def test_the_memory_of_many_runs_stays_constant(folder):
    from tests.reliability.test_soak import resident_bytes

    sizes = []
    for i in range(120):
        fa_jax.train(task=data(), network=Net(5 + i % 3), rule=["bp", "fa"], seed=i, **SHORT, record=False)
        sizes.append(resident_bytes())
    assert sizes[-1] < 1.1 * sizes[40]


def test_objects_that_are_described_alike_train_each_by_itself():
    class Factor(float):
        def __repr__(self):
            return "Factor()"

    def rule_of(factor):
        def rule(network, loss):
            plain = fa(network, loss, init_feedback=layerwise())
            return plain._replace(
                updates=lambda *arguments: jax.tree.map(lambda u: factor * u, plain.updates(*arguments))
            )

        return rule

    learning, still = fa_jax.train(task=(*data(), *data()), rule=[rule_of(Factor(1)), rule_of(Factor(0))], **SHORT)
    assert learning.config == still.config
    losses = [run.record.metrics["test_loss"] for run in (learning, still)]
    assert losses[0][0] == losses[1][0] == losses[1][-2] != losses[0][-2]


def test_functions_that_close_over_long_arrays_are_told_apart():
    def scaled(factors):
        return lambda logits, targets: factors[1000] * ((logits - targets) ** 2).sum(-1).mean()

    factors = np.ones(2001)
    others = np.where(np.arange(2001) == 1000, 0, factors)
    nodes = [digest_of(scaled(values)) for values in (factors, others, factors.copy())]
    assert nodes[0] == nodes[2] != nodes[1]
