"""The contestants of the speed benchmark: they train, they compute the same, and their record is kept."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common import read_rows
from experiments.speed import contestants, limit, products, record

FEW = {"train_examples": 64, "test_examples": 32}
"""The training examples fill one batch, so that every batch has all of them."""


def fa_jax(rule, *more, seeds=1):
    overrides = ["task=mnist", f"rule={rule}", "architecture.hidden=[16]", "architecture.activation=tanh"]
    overrides += ["batch_size=64", "optimizer.learning_rate=0.1", f"seeds={seeds}", "devices=1", "probe=0"]
    return contestants.FaJax([*overrides, *more], FEW)


@pytest.mark.parametrize(
    "rule", [pytest.param("bp", marks=pytest.mark.slow), "fa", pytest.param("dfa", marks=pytest.mark.slow)]
)
def test_training_loss_falls_by_a_tenth_within_a_hundred_steps(rule):
    contestant = fa_jax(rule, seeds=2)
    contestant.run(10)
    first = np.asarray(contestant.states.sums["loss"]) / 10
    contestant.run(90)
    rest = np.asarray(contestant.states.sums["loss"]) / 90 - first / 9
    assert np.all(contestant.states.sums["batches"] == 100)
    assert np.all(rest < 0.9 * first)


def test_images_have_the_shape_of_mnist_and_differ_between_splits():
    images, classes = contestants.mnist_like("train", 1000)
    assert (images.shape, images.dtype, classes.dtype) == ((1000, 28, 28, 1), np.uint8, np.int32)
    assert set(classes) == set(range(10))
    assert not np.array_equal(images, contestants.mnist_like("test", 1000)[0])


NOKLAND = "optimizer=rmsprop", "loss=binary_cross_entropy", "optimizer.learning_rate=0.0001"


def test_process_of_a_contestant_replies_with_seconds_for_every_number_of_steps():
    network = ["task=mnist", "rule=fa", "architecture.hidden=[8]", "seeds=1", "devices=1", "probe=0"]
    spec = {"loop": "FaJax", "overrides": network, "synthetic": FEW}
    result = subprocess.run(
        [sys.executable, "-m", "experiments.speed.contestants", json.dumps(spec)],
        input="0\n3\n",
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = [float(line) for line in result.stdout.splitlines()]
    assert len(seconds) == 2
    assert seconds[1] > 0


@pytest.mark.parametrize(("peer", "overrides"), [("Torch", ()), ("TorchNokland", NOKLAND)])
def test_first_update_of_backprop_matches_pytorch(peer, overrides):
    torch = pytest.importorskip("torch")
    mine, theirs = fa_jax("bp", *overrides), getattr(contestants, peer)([16], train_examples=64)
    layers = [theirs.net[0], theirs.net[2]]

    def weights():
        params = mine.states.params
        return [np.asarray(layer["kernel"])[0] for layer in (params["stages_0"]["linear"], params["readout"])]

    with torch.no_grad():
        for layer, kernel in zip(layers, weights(), strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
            layer.bias.zero_()
    before = weights()
    mine.run(1)
    theirs.run(1)
    for layer, kernel, start in zip(layers, weights(), before, strict=True):
        update = kernel - start
        assert np.linalg.norm(update) > 1e-3
        np.testing.assert_allclose(
            layer.weight.detach().numpy().T - start, update, rtol=0, atol=1e-4 * np.abs(update).max()
        )
    biases = [mine.states.params["stages_0"]["linear"]["bias"], mine.states.params["readout"]["bias"]]
    for layer, bias in zip(layers, biases, strict=True):
        np.testing.assert_allclose(layer.bias.detach().numpy(), np.asarray(bias)[0], rtol=0, atol=1e-6)


def test_first_update_of_associated_learning_matches_pytorch():
    torch = pytest.importorskip("torch")
    overrides = ["task=mnist", "rule=associated_learning", "architecture.hidden=[16,16]", "architecture.activation=elu"]
    overrides += ["rule.width=16", "batch_size=64", "optimizer.learning_rate=1e-3", "seeds=1", "devices=1", "probe=0"]
    mine = contestants.FaJax(overrides, FEW)
    theirs = contestants.TorchAssociatedLearning([16, 16], threads=1, batch_size=64)
    theirs.inputs, theirs.targets = contestants._tensors(64)
    pairs = []
    for i in range(2):
        pairs += [(theirs.stages[i][0], ("stages", i, "linear")), (theirs.encoders[i][0], ("encoders", i))]
        pairs += [(theirs.decoders[i][0], ("decoders", i))]
        pairs += [(theirs.bridges[i][2 * j], ("bridges", i, f"dense_{j}")) for j in range(2)]

    def weights():
        kernels = []
        for _, (kind, i, *layer) in pairs:
            part = mine.states.params[f"{kind}_{i}"]
            kernels.append(np.asarray((part[layer[0]] if layer else part)["kernel"])[0])
        return kernels

    with torch.no_grad():
        for (layer, _), kernel in zip(pairs, weights(), strict=True):
            layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
            layer.bias.zero_()
    before = weights()
    mine.run(1)
    theirs.run(1)
    for (layer, name), kernel, start in zip(pairs, weights(), before, strict=True):
        ours, other = kernel - start, layer.weight.detach().numpy().T - start
        # Adam's first step is the sign of the gradient, which rounding decides near zero.
        large = np.abs(ours) > 0.9 * np.abs(ours).max()
        np.testing.assert_allclose(other[large], ours[large], rtol=2e-2, err_msg=str(name))


def test_median_decides_whether_a_requirement_is_met():
    assert record.Row("ratio", [1.0, 1.9, 3.0], "", ">= 2").record()["met"] == "no"
    assert record.Row("ratio", [1.0, 2.0, 3.0], "", ">= 2").record()["met"] == "yes"
    assert record.Row("seconds", [61.0, 59.0, 58.0], "s", "< 60").record()["met"] == "yes"


def test_new_rows_of_a_section_replace_its_old_ones(tmp_path):
    out = tmp_path / "measured.csv"
    for section, value in (("start", 9.0), ("overhead", 5.0), ("start", 8.0)):
        record.record(section, [record.Row("what", [value], "s")], out)
    assert {row["section"]: row["median"] for row in read_rows(out)} == {"start": "8", "overhead": "5"}
    assert "| what | 8 s | 8 to 8 |" in record.table(read_rows(out))


def test_bare_products_are_as_many_as_the_counted_ones():
    widths, batch = (784, 1000, 1000, 1000, 10), 64
    bare = sum(product.flops for product in limit.backpropagation(widths, batch))
    assert bare == 2 * batch * products.bp(products.Layers(widths, batch))
    forward_forward = sum(product.flops for product in limit.forward_forward(widths, batch))
    assert forward_forward / bare == pytest.approx(1.84, abs=0.01)


def test_bare_products_by_xla_are_those_of_numpy():
    made = [kind(3, 4, 5) for kind in (limit.forward, limit.gradient, limit.backward)]
    left, right = zip(*(limit._operands(product) for product in made), strict=True)
    contestant = limit.XlaProducts(made)
    results = contestant.loop(1, contestant.operands, contestant.results)
    expected = left[0] @ right[0], left[1].T @ right[1], left[2] @ right[2].T
    for result, product, reference in zip(results, made, expected, strict=True):
        assert result.shape == (product.rows, product.columns)
        np.testing.assert_allclose(result, reference, rtol=1e-5)


def test_steps_of_the_optimizer_alone_are_those_of_the_run():
    contestant = contestants.OptimizerSteps(["task=linear", "rule=bp", "optimizer=sgd", "optimizer.learning_rate=0.25"])
    before = jax.tree.map(np.asarray, contestant.state[0])
    contestant.run(1)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, 0.75 * old, rtol=1e-6), contestant.state[0], before)
