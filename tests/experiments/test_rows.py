"""The rows of the papers' experiments: each is a job that builds, those on CIFAR on made-up images of its shape."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from fa_jax.cli import build as building
from fa_jax.cli.compose import compose, tell_apart
from fa_jax.core import Batch
from fa_jax.network import count
from fa_jax.tasks import tfds as store
from fa_jax.training.compile import make_program_of

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def script(paper, name="rows"):
    """A module of an experiment."""
    spec = importlib.util.spec_from_file_location(f"{name}_{paper}", EXPERIMENTS / paper / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOKLAND, KAO, HINTON = (script(paper) for paper in ("nokland2016", "kao2019", "hinton2022"))
ROWS = {
    **{
        f"nokland2016 {name} {rule}": NOKLAND.overrides(name, rule)
        for name, row in NOKLAND.ROWS.items()
        for rule in row.rules
    },
    **{
        f"kao2019 {row} {name}": KAO.all_words(words, 1)
        for row in (*KAO.ROWS, *KAO.LONG)
        for name, words, _ in KAO.runs(row)
    },
    **{f"hinton2022 {name}": list(words) for name, words in HINTON.ROWS.items()},
}
FEW = ("task.train_examples=null", "task.test_examples=null", "task.validation=0", "batch_size=8")
STEPS = "nokland2016 cifar100 1x1000 dfa", "nokland2016 cifar100 3x1000 dropout fa", "kao2019 cifar100 resnet20_al"
"""Of which some are tried; the convolutional network needs more images to be whitened than are made by default."""


@pytest.fixture
def few_images(monkeypatch):
    """Puts made-up images in the place of every data set: two splits of 40, of which each class has its own shade."""

    def read(dataset, data_dir, examples=40):
        form, random = store.FORMS[dataset], np.random.default_rng(0)

        def split(n):
            classes = np.arange(n, dtype=np.int32) % form.classes
            noise = random.integers(0, 100, (n, *form.shape))
            return (noise + classes[:, None, None, None]).astype(np.uint8), classes

        return {"train": split(examples), "test": split(40)}

    monkeypatch.setattr(store, "read", read)
    building._make_task.cache_clear()
    yield read
    building._make_task.cache_clear()


def job_of(words, *further):
    """Builds what the words say, whitening apart, for which there are too few images."""
    whitened = [word for word in ("task.preprocessing=unit",) if any("conv_cifar" in w for w in words)]
    (one,) = compose(tell_apart([*words, *FEW, *whitened, "seeds=1", *further]))[1]
    return building.build(one.config)


@pytest.mark.parametrize(
    "name", [name if "cifar100" in name else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_every_row_builds_and_its_rule_is_defined_on_its_network(few_images, name):
    if name.startswith("hinton2022 digits"):
        pytest.skip("its data are there, and the defaults build")
    job = job_of(ROWS[name])
    inputs = jax.ShapeDtypeStruct((8, *job.task.input_shape), np.float32)
    targets = jax.ShapeDtypeStruct((8, job.task.outputs), np.float32)

    def step(key, inputs, targets):
        params, feedback = job.rule.init(key)
        return params, job.rule.updates(params, feedback, Batch(inputs, targets, key))

    params, updates = jax.eval_shape(step, jax.random.key(0), inputs, targets)
    assert updates == params


PARAMS = {
    "exact al": 24_957_962,
    "exact bp": 13_405_194,
    "cnn al": 62_085_546,
    "cnn bp": 4_700_586,
    "cifar10 mlp_al": 216_327_010,
    "cifar10 mlp_bp": 117_273_010,
    "cifar10 cnn_al": 80_518_122,
    "cifar10 cnn_bp": 5_929_962,
    "cifar10 resnet20_al": 70_211_726,
    "cifar10 resnet20_bp": 1_099_526,
    "cifar10 vgg_al": 164_355_694,
    "cifar10 vgg_bp": 10_596_070,
    "cifar100 mlp_al": 216_867_100,
    "cifar100 mlp_bp": 117_543_100,
    "cifar100 cnn_al": 160_373_520,
    "cifar100 cnn_bp": 12_452_520,
    "cifar100 resnet20_al": 119_528_016,
    "cifar100 resnet20_bp": 2_496_016,
    "cifar100 vgg_al": 269_991_984,
    "cifar100 vgg_bp": 13_976_560,
}
"""Of the authors' networks, the shifts and scales of normalisations among them."""


@pytest.mark.parametrize("row", PARAMS)
def test_the_networks_of_kao_2019_have_the_params_of_the_authors_code(few_images, row):
    job = job_of(ROWS[f"kao2019 {row}"])
    params, _ = jax.eval_shape(job.rule.init, jax.random.key(0))
    assert count(job.network, params) == PARAMS[row]


def test_associated_learning_goes_some_steps_on_cifar_100_by_the_authors_settings(few_images):
    words = ["experiment=kao2019_cifar100", "architecture=cnn", "architecture.norm=batch_tensorflow", "rule.width=8"]
    job = job_of([*words, "architecture.topology=conv4x3+conv4x3s2-conv8x3s2", "architecture.activation=elu"])
    program, seeds = make_program_of(job, 1), np.zeros(1, np.int32)
    states, fixed = program.start(seeds)
    before = jax.device_get(states.params)
    states = program.advance(states, fixed, seeds, 0, 3, program.data)
    metrics, states = program.measure(states, fixed, seeds, 3, program.data)
    after = jax.device_get(states.params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after))
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    assert 0 < metrics["associated_loss_0"][0] < 1


@pytest.mark.parametrize("experiment", ["nokland2016", "rules_by_architectures"])
def test_the_readme_has_the_tables_that_the_script_prints(experiment):
    if experiment == "nokland2016":
        printed = NOKLAND.tables()
    else:
        paths = sorted((EXPERIMENTS / experiment).glob("measured_*.csv"))
        printed = "\n".join(script(experiment, "compare").table(path) for path in paths)
    lines = (EXPERIMENTS / experiment / "README.md").read_text().splitlines()
    missing = [line for line in printed.splitlines() if line.startswith("|") and line not in lines]
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_row_on_cifar_100_has_updates(few_images, name):
    job = job_of(ROWS[name])
    params, feedback = job.rule.init(jax.random.key(0))
    inputs, targets = job.task.prepare(job.task.train.inputs[:8]), job.task.encode(job.task.train.targets[:8])
    updates = job.rule.updates(params, feedback, Batch(inputs, targets, jax.random.key(1)))
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
    assert any(np.any(u != 0) for u in jax.tree.leaves(updates))
    assert targets.shape == (8, 100)


@pytest.mark.slow
def test_the_convolutional_row_on_cifar_100_has_updates_on_whitened_images(few_images, monkeypatch):
    monkeypatch.setattr(store, "read", lambda *of: few_images(*of, examples=3200))
    words = [*NOKLAND.overrides("cifar100 conv", "dfa"), *FEW, "seeds=1"]
    job = building.build(compose(tell_apart(words))[1][0].config)
    white = np.asarray(job.task.train.inputs).reshape(3200, -1)
    np.testing.assert_allclose(white.std(0).mean(), 1, rtol=0.05)
    params, feedback = job.rule.init(jax.random.key(0))
    batch = Batch(job.task.train.inputs[:8], job.task.encode(job.task.train.targets[:8]), jax.random.key(1))
    updates = job.rule.updates(params, feedback, batch)
    # From zero weights the first layer alone has a signal that meets an input which is not zero.
    assert np.any(np.asarray(updates["stages_0"]["linear"]["kernel"]) != 0)
    assert not np.any(np.asarray(updates["stages_1"]["linear"]["kernel"]))
