"""Jobs of the experiments on made-up images, and records of runs that were not trained."""

import numpy as np
import pytest

from fa_jax.cli import build
from fa_jax.cli.arguments import parse
from fa_jax.cli.compose import compose
from fa_jax.records.writer import Writer
from fa_jax.tasks import tfds

FEW = ("task.train_examples=null", "task.test_examples=null", "task.validation=0", "batch_size=8", "seeds=1")
"""Overrides for data sets of few examples."""


@pytest.fixture
def few_images(monkeypatch):
    """Replaces every data set by two splits of 40 noisy images, in which each class has a brightness of its own.

    Returns the function that replaces `tfds.read`; its argument `examples` is the size of the training split.
    """

    def read(dataset, data_dir, examples=40):
        form, random = tfds.DATASETS[dataset], np.random.default_rng(0)

        def split(n):
            classes = np.arange(n, dtype=np.int32) % form.classes
            noise = random.integers(0, 100, (n, *form.shape))
            return (noise + classes[:, None, None, None]).astype(np.uint8), classes

        return {"train": split(examples), "test": split(40)}

    monkeypatch.setattr(tfds, "read", read)
    build._task.cache_clear()
    yield read
    build._task.cache_clear()


def job_of(overrides, *more):
    """Builds the job of a row on few images, without whitening, for which they are too few."""
    whitened = any("conv_cifar" in override for override in overrides)
    preprocessing = ["task.preprocessing=unit"] if whitened else []
    return compose(parse([*overrides, *FEW, *preprocessing, *more])).runs[0].job


def record(folder, status, seeds=2):
    """Records a run of two overrides, in place of an earlier one."""
    for name in ("config.yaml", "status.json"):
        (folder / name).unlink(missing_ok=True)
    config = {"choices": {"rule": "fa", "task": "linear"}, "seeds": seeds, "epochs": 1, "spacing": "linear"}
    writer = Writer(folder, config, command=["fa-jax", "rule=fa", f"seeds={seeds}", f"hydra.run.dir={folder}"])
    writer.status(status)
    writer.close()
    return folder
