"""The rows of the papers' experiments build, and their rules are defined on their networks."""

import jax
import numpy as np
import pytest

from experiments.hinton2022 import rows as hinton2022
from experiments.kao2019 import rows as kao2019
from experiments.nokland2016 import rows as nokland2016
from experiments.residual_mlp import rows as residual_mlp
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.core import Batch
from fa_jax.tasks import tfds
from tests.experiments.conftest import FEW, job_of

ROWS = {
    **{
        f"nokland2016 {name} {rule}": nokland2016.overrides(name, rule)
        for name, row in nokland2016.ROWS.items()
        for rule in row.rules
    },
    **{
        f"kao2019 {row} {name}": kao2019.arguments_of(overrides)
        for row in (*kao2019.ROWS, *kao2019.LONG)
        for name, overrides, _ in kao2019.runs(row)
    },
    **{
        f"residual_mlp {network} {rule}": residual_mlp.STUDY.overrides(network, rule, 30)
        for network in residual_mlp.STUDY.networks
        for rule in residual_mlp.STUDY.rules
    },
    **{f"hinton2022 {name}": list(overrides) for name, overrides in hinton2022.ROWS.items()},
}
BUILT_FIRST = (
    "nokland2016 cifar100 1x1000 dfa",
    "nokland2016 cifar100 conv fa",
    "kao2019 cifar100 cnn_al",
    "kao2019 cifar100 resnet20_al",
)
"""Rows whose shapes are tested without `-m slow`: one of each paper and kind of network."""
STEPS = "nokland2016 cifar100 1x1000 dfa", "nokland2016 cifar100 3x1000 dropout fa", "kao2019 cifar100 resnet20_al"
"""Rows of which updates are computed."""


@pytest.mark.parametrize(
    "name",
    [name if name in BUILT_FIRST else pytest.param(name, marks=pytest.mark.slow) for name in ROWS],
)
def test_updates_of_every_row_have_the_shapes_of_its_params(few_images, name):
    if name.startswith("hinton2022 digits"):
        pytest.skip("digits has no option for the number of examples")
    job = job_of(ROWS[name])
    inputs = jax.ShapeDtypeStruct((8, *job.task.input_shape), np.float32)
    targets = jax.ShapeDtypeStruct((8, job.task.outputs), np.float32)

    def step(key, inputs, targets):
        params, feedback = job.rule.init(key)
        return params, job.rule.updates(params, feedback, Batch(inputs, targets, key))

    params, updates = jax.eval_shape(step, jax.random.key(0), inputs, targets)
    assert updates == params


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_updates_on_cifar_100_are_finite_and_not_zero(few_images, name):
    job = job_of(ROWS[name])
    params, feedback = job.rule.init(jax.random.key(0))
    inputs, targets = job.task.prepare(job.task.train.inputs[:8]), job.task.encode(job.task.train.targets[:8])
    updates = job.rule.updates(params, feedback, Batch(inputs, targets, jax.random.key(1)))
    assert all(np.all(np.isfinite(u)) for u in jax.tree.leaves(updates))
    assert any(np.any(u != 0) for u in jax.tree.leaves(updates))
    assert targets.shape == (8, 100)


@pytest.mark.slow
def test_convolutional_row_on_whitened_cifar_100_updates_its_first_layer(few_images, monkeypatch):
    monkeypatch.setattr(tfds, "read", lambda *arguments: few_images(*arguments, examples=3200))
    job = compose(parse([*nokland2016.overrides("cifar100 conv", "dfa"), *FEW])).runs[0].job
    white = np.asarray(job.task.train.inputs).reshape(3200, -1)
    np.testing.assert_allclose(white.std(0).mean(), 1, rtol=0.05)
    params, feedback = job.rule.init(jax.random.key(0))
    batch = Batch(job.task.train.inputs[:8], job.task.encode(job.task.train.targets[:8]), jax.random.key(1))
    updates = job.rule.updates(params, feedback, batch)
    # All weights start at zero, so that only the first layer has inputs that are not zero.
    assert np.any(np.asarray(updates["stages_0"]["linear"]["kernel"]) != 0)
    assert not np.any(np.asarray(updates["stages_1"]["linear"]["kernel"]))


def test_training_stops_once_the_smoothed_training_error_is_small():
    errors = np.array([*[0.0] * 100])
    smoothed, epoch = 100.0, 0
    while smoothed > 0.01:
        smoothed, epoch = 0.75 * smoothed, epoch + 1
    assert nokland2016.stopping_epoch(errors) == epoch
    assert nokland2016.stopping_epoch(errors[: epoch - 1]) is None
    assert nokland2016.stopping_epoch(errors + 0.02) is None
