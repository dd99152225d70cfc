"""Class separation equals a count of pairs one by one."""

import itertools

import jax
import numpy as np

from fa_jax.losses import cross_entropy
from fa_jax.metrics.separation import centroid_ratio, ratio, separation
from tests.conftest import make_rule, random_batch


def clusters():
    random = np.random.default_rng(0)
    classes = np.arange(30) % 3
    return (random.normal(size=(3, 5))[classes] + random.normal(size=(30, 5))).astype(np.float32), classes


def test_ratio_is_that_of_distances_pair_by_pair():
    points, classes = clusters()
    within, between = [], []
    for a, b in itertools.combinations(range(len(points)), 2):
        distances = within if classes[a] == classes[b] else between
        distances.append(np.linalg.norm(points[a] - points[b]))
    np.testing.assert_allclose(ratio(points, np.eye(3)[classes]), np.mean(between) / np.mean(within), rtol=1e-4)


def test_ratio_is_invariant_to_scale_and_translation():
    points, classes = clusters()
    targets = np.eye(3)[classes]
    np.testing.assert_allclose(ratio(7 * points + 100, targets), ratio(points, targets), rtol=1e-4)


def test_centroid_ratio_is_that_of_class_means():
    points, classes = clusters()
    means = np.stack([points[classes == k].mean(0) for k in range(3)])
    between = np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(means, 2)])
    within = np.mean([np.linalg.norm(p - means[k]) for p, k in zip(points, classes, strict=True)])
    np.testing.assert_allclose(centroid_ratio(points, np.eye(3)[classes]), between / within, rtol=1e-5)


def test_every_layer_is_measured_also_in_a_scanned_stack():
    network, rule = make_rule("bp", hidden=(9,) * 10)
    params, _ = rule.init(jax.random.key(0))
    batch, measure = random_batch(size=20), separation()
    metrics = measure.compute(rule, network, cross_entropy().value, params, (), batch)
    assert list(metrics) == [f"{metric.name}_{i}" for metric in measure.metrics for i in range(10)]
    _, hiddens = network.forward(params, batch.inputs)
    first, stack = hiddens.values()
    np.testing.assert_allclose(metrics["separation_0"], ratio(first, batch.targets), rtol=1e-6)
    np.testing.assert_allclose(metrics["separation_9"], ratio(stack[-1], batch.targets), rtol=1e-6)
