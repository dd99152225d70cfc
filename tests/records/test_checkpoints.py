"""Checkpoints are restored bit for bit; instead of a damaged or incomplete one the one before it is used."""

import hashlib
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from fa_jax.checks import BadOption
from fa_jax.records import writer
from fa_jax.records.checkpoints import Checkpoints


def make_tree(value):
    return {"a": jnp.full((2, 3), value), "order": jnp.zeros((2, 0), jnp.int32), "b": (jnp.arange(4) + int(value),)}


@pytest.fixture
def run_folder(tmp_path):
    """The folder of a run that saved three steps of group 0 and one of group 1."""
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20, 30):
        checkpoints.save(0, step, make_tree(step), {"training": step / 10})
    checkpoints.save(1, 10, make_tree(7), {"training": 4.0})
    checkpoints.close(delete=False)
    return tmp_path


def test_the_newest_checkpoint_of_each_group_is_restored(run_folder):
    first, second = Checkpoints(run_folder).usable(30)
    assert (first.group, first.step, first.cost) == (0, 30, {"training": 3.0})
    assert (second.group, second.step) == (1, 10)
    restored = Checkpoints(run_folder).load(first, make_tree(0))
    np.testing.assert_array_equal(restored["a"], np.full((2, 3), 30.0))
    np.testing.assert_array_equal(restored["b"][0], np.arange(4) + 30)
    assert restored["order"].shape == (2, 0)
    assert restored["order"].dtype == np.int32


def test_two_checkpoints_of_a_group_are_kept(run_folder):
    assert sorted(path.name for path in (run_folder / "resume").glob("000000_*.json")) == [
        "000000_000000000020.json",
        "000000_000000000030.json",
    ]


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "missing file", "manifest", "no manifest"])
def test_instead_of_a_damaged_checkpoint_the_one_before_is_used(run_folder, damage, caplog):
    newest = run_folder / "resume" / "000000_000000000030"
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    if damage == "truncated":
        largest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped bit":
        largest.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "missing file":
        largest.unlink()
    elif damage == "manifest":
        newest.with_suffix(".json").write_text(json.dumps({"digests": {}})[:-3])
    else:
        newest.with_suffix(".json").unlink()  # interrupted while it was written
    # Group 0 is not complete then, so group 1 starts again.
    assert [checkpoint.step for checkpoint in Checkpoints(run_folder).usable(30)] == [20]
    assert not newest.exists()
    assert not list((run_folder / "resume").glob("000001*"))
    assert ("is damaged" in caplog.text) == (damage != "no manifest")


def test_a_run_goes_on_without_checkpoints_where_none_can_be_written(tmp_path, caplog):
    (tmp_path / "resume").write_text("a file in the place of the folder")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, 10, make_tree(1), {})
    checkpoints.close(delete=False)
    assert "no checkpoint was written" in caplog.text
    assert checkpoints.usable(30) == []


@pytest.mark.parametrize(
    "name", ["notes.txt", "._000000_000000000030.json", "a_b.json", "old_30", "1_2.json", ".DS_Store"]
)
def test_a_stray_file_is_left_alone(run_folder, name):
    (run_folder / "resume" / name).write_text("mine")
    assert [checkpoint.step for checkpoint in Checkpoints(run_folder).usable(30)] == [30, 10]
    checkpoints = Checkpoints(run_folder)
    checkpoints.save(1, 20, make_tree(8), {"training": 5.0})
    checkpoints.close(delete=True)
    assert [path.name for path in (run_folder / "resume").iterdir()] == [name]
    assert (run_folder / "resume" / name).read_text() == "mine"


@pytest.mark.parametrize(
    "content", ["[]", "7", '{"digests": 1, "cost": {}}', '{"digests": {}, "cost": {"training": "x"}}']
)
def test_a_manifest_of_other_types_is_damaged(run_folder, content):
    (run_folder / "resume" / "000000_000000000030.json").write_text(content)
    assert [checkpoint.step for checkpoint in Checkpoints(run_folder).usable(30)] == [20]


def test_what_a_manifest_has_besides_its_fields_is_left_out(run_folder):
    path = run_folder / "resume" / "000000_000000000030.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "cost": {"training": 3.0, "mine": 1}}))
    assert Checkpoints(run_folder).usable(30)[0].cost == {"training": 3.0}


def test_a_checkpoint_that_is_none_although_its_manifest_says_so_is_refused(run_folder):
    folder = run_folder / "resume" / "000000_000000000030"
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.write_bytes(b"mine")
    digests = {str(p.relative_to(folder)): SHA256_OF_MINE for p in folder.rglob("*") if p.is_file()}
    folder.with_suffix(".json").write_text(json.dumps({"digests": digests, "cost": {}}))
    checkpoints = Checkpoints(run_folder)
    first, _ = checkpoints.usable(30)
    with pytest.raises(BadOption, match=r"^resume: .*000000_000000000030 cannot be read: "):
        checkpoints.load(first, make_tree(0))


SHA256_OF_MINE = hashlib.sha256(b"mine").hexdigest()


def test_what_a_killed_write_left_among_checkpoints_is_removed(run_folder):
    (run_folder / "resume" / f".{'0' * 16}.tmp").write_text("half")
    Checkpoints(run_folder).close(delete=True)
    assert not (run_folder / "resume").exists()


def test_a_finished_run_keeps_no_checkpoint(run_folder):
    Checkpoints(run_folder).close(delete=True)
    assert not (run_folder / "resume").exists()


def test_a_group_is_not_resumed_if_the_group_before_it_has_no_checkpoint(run_folder):
    for manifest in (run_folder / "resume").glob("000000_*.json"):
        manifest.unlink()
    assert Checkpoints(run_folder).usable(30) == []
    assert not list((run_folder / "resume").iterdir())


@pytest.mark.parametrize(
    "like",
    [
        {**make_tree(0), "a": jnp.zeros((3, 2), jnp.int32)},
        {**make_tree(0), "a": jnp.zeros((2, 3), jnp.float32)},
        {"a": make_tree(0)["a"]},
        {**make_tree(0), "c": jnp.zeros(2)},
    ],
    ids=["shape", "dtype", "fewer", "more"],
)
def test_arrays_of_other_shapes_are_refused(run_folder, like):
    checkpoints = Checkpoints(run_folder)
    first, _ = checkpoints.usable(30)
    with pytest.raises(BadOption, match="holds arrays of other shapes than the code has now; start a new run"):
        checkpoints.load(first, like)


def test_without_room_on_the_disk_a_checkpoint_is_not_begun(run_folder, monkeypatch, caplog):
    before = sorted(run_folder.rglob("*"))
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 2**18))
    checkpoints = Checkpoints(run_folder)
    checkpoints.save(1, 20, make_tree(8), {"training": 5.0})
    checkpoints.close(delete=False)
    assert "no checkpoint was written: [Errno 28] No space left on device" in caplog.text
    assert sorted(run_folder.rglob("*")) == before
