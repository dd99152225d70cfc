"""The rows of the papers' experiments: each is a job that builds, those on CIFAR on made-up images of its shape."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from fa_jax import build as building
from fa_jax.composing import compose, tell_apart
from fa_jax.core import Batch
from fa_jax.tasks import store

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def script(paper):
    """The module `rows.py` of an experiment."""
    spec = importlib.util.spec_from_file_location(f"rows_{paper}", EXPERIMENTS / paper / "rows.py")
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
        f"kao2019 {row} {name}": [
            *(() if words[0].startswith("experiment=") else (KAO.MNIST,)),
            *(word.replace(" ", "") for word in words),
        ]
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


@pytest.mark.parametrize(
    ("classes", "counts"),
    [
        (10, {"mlp": 117_273_010, "cnn": 5_929_962, "resnet20": 1_099_526, "vgg": 10_596_070}),
        (100, {"mlp": 117_543_100, "cnn": 12_452_520, "resnet20": 2_496_016, "vgg": 13_976_560}),
    ],
)
def test_backprop_s_networks_of_kao_2019_have_the_params_of_the_authors_code(few_images, classes, counts):
    for name, expected in counts.items():
        job = job_of(ROWS[f"kao2019 cifar{classes} {name}_bp"])
        params, _ = jax.eval_shape(job.rule.init, jax.random.key(0))
        found = jax.tree_util.tree_leaves_with_path(params)
        trained = [leaf for path, leaf in found if path[-1].key in ("kernel", "bias", "scale")]
        assert sum(np.prod(leaf.shape, dtype=int) for leaf in trained) == expected, name


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_row_on_cifar_100_trains(few_images, name):
    job = job_of(ROWS[name])
    params, feedback = job.rule.init(jax.random.key(0))
    inputs, targets = job.task.prepare(job.task.train.inputs[:8]), job.task.encode(job.task.train.targets[:8])
    updates = job.rule.updates(params, feedback, Batch(inputs, targets, jax.random.key(1)))
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
    assert any(np.any(u != 0) for u in jax.tree.leaves(updates))
    assert targets.shape == (8, 100)


@pytest.mark.slow
def test_the_convolutional_row_on_cifar_100_trains_on_whitened_images(few_images, monkeypatch):
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
