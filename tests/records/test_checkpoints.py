"""Checkpoints come back bit for bit, and one that is damaged or half written is passed over for the one before."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.records.checkpoints import Checkpoints


def tree(value):
    return {"a": jnp.full((2, 3), value), "order": jnp.zeros((2, 0), jnp.int32), "b": (jnp.arange(4) + int(value),)}


@pytest.fixture
def folder(tmp_path):
    """Three steps of group 0 and one of group 1 were saved."""
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        checkpoints.save(0, step, tree(step), {"training": step / 10})
    checkpoints.save(1, 10, tree(7), {"training": 4.0})
    checkpoints.close(delete=False)
    return tmp_path


def test_the_newest_of_each_group_comes_back(folder):
    first, second = Checkpoints(folder).found(30)
    assert (first.group, first.step, first.cost) == (0, 30, {"training": 3.0})
    assert (second.group, second.step) == (1, 10)
    back = Checkpoints(folder).load(first, tree(0))
    np.testing.assert_array_equal(back["a"], np.full((2, 3), 30.0))
    np.testing.assert_array_equal(back["b"][0], np.arange(4) + 30)
    assert back["order"].shape == (2, 0)
    assert back["order"].dtype == np.int32


def test_two_of_a_group_are_kept(folder):
    assert sorted(path.name for path in (folder / "resume").glob("000000_*.json")) == [
        "000000_000000000020.json",
        "000000_000000000030.json",
    ]


@pytest.mark.parametrize("harm", ["truncate", "flip", "lose", "list", "half"])
def test_one_that_is_damaged_is_passed_over_with_a_warning(folder, harm, caplog):
    newest = folder / "resume" / "000000_000000000030"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = largest.read_bytes()
    if harm == "truncate":
        largest.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        largest.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "lose":
        largest.unlink()
    elif harm == "list":
        newest.with_suffix(".json").write_text(json.dumps({"digests": {}})[:-3])
    else:
        newest.with_suffix(".json").unlink()  # cut off while it was written
    assert [one.step for one in Checkpoints(folder).found(30)] == [20]  # group 0 is not complete, so 1 begins again
    assert not newest.exists()
    assert not list((folder / "resume").glob("000001*"))
    assert ("is damaged" in caplog.text) == (harm != "half")


def test_where_none_can_be_written_the_run_goes_on(tmp_path, caplog):
    (tmp_path / "resume").write_text("a file stands where the folder should")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, 10, tree(1), {})
    checkpoints.close(delete=False)
    assert "no checkpoint was written" in caplog.text
    assert checkpoints.found(30) == []


def test_a_finished_run_keeps_none(folder):
    Checkpoints(folder).close(delete=True)
    assert not (folder / "resume").exists()


def test_no_group_is_continued_from_another_one(folder):
    for listing in (folder / "resume").glob("000000_*.json"):
        listing.unlink()
    assert Checkpoints(folder).found(30) == []
    assert not list((folder / "resume").iterdir())


def test_arrays_of_other_shapes_are_refused(folder):
    checkpoints = Checkpoints(folder)
    (first, _) = checkpoints.found(30)
    for other in ({**tree(0), "a": jnp.zeros((3, 2))}, {"a": tree(0)["a"]}, {**tree(0), "c": jnp.zeros(2)}):
        with pytest.raises(BadOption, match="holds other arrays than the code has now"):
            checkpoints.load(first, other)
