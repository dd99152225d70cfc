"""Reading TFDS data sets: what comes out, what is cached, and what is refused."""

import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fa_jax.checks import BadOption
from fa_jax.tasks import tfds as store

FIXTURES = Path(__file__).parents[1] / "fixtures"
CUT = FIXTURES / "tensorflow_datasets"
VERSION = Path("mnist", "3.0.1")
TRAIN = "mnist-train.array_record-00000-of-00001"
TEST = "mnist-test.array_record-00000-of-00001"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no data but what a test names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path / "cache" / "fa_jax"


@pytest.fixture
def copy(tmp_path):
    """A TFDS data directory of one's own to damage."""
    shutil.copytree(CUT, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def never_decode(monkeypatch):
    """Makes any look into the record files an error; called once the cache is filled."""

    def forbid():
        monkeypatch.setattr(store, "_decode", lambda *args: pytest.fail("decoded the records again"))

    return forbid


def assert_equal(a, b):
    assert a.keys() == b.keys() == {"train", "test"}
    for split in a:
        for x, y in zip(a[split], b[split], strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def flip_a_bit(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 8
    path.write_bytes(content)


def refusal(data_dir, dataset="mnist"):
    """The one line with which a data directory is refused."""
    with pytest.raises(BadOption) as caught:
        store.read(dataset, str(data_dir))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What comes out


def test_whole_arrays_are_what_tfds_reads_one_by_one():
    found = store.read("mnist", str(CUT))
    for split, (images, labels) in found.items():
        source = tfds.data_source("mnist", split=split, data_dir=CUT, download=False)
        assert (images.shape, images.dtype) == ((len(source), 28, 28, 1), np.uint8)
        assert (labels.shape, labels.dtype) == ((len(source),), np.int32)
        for i, example in enumerate(source):
            np.testing.assert_array_equal(images[i], example["image"])
            assert labels[i] == example["label"]


def test_blocks_do_not_have_to_divide_the_examples(monkeypatch):
    whole = store._decode(*_arguments(CUT))
    monkeypatch.setattr(store, "_BLOCK", 37)
    for x, y in zip(whole, store._decode(*_arguments(CUT)), strict=True):
        np.testing.assert_array_equal(x, y)


def _arguments(data_dir):
    prepared = store._find("mnist", str(data_dir))
    info = (prepared.folder / "dataset_info.json").read_bytes()
    return prepared, store.FORMS["mnist"], "train", store._shards(prepared, info, "train")


def test_several_record_files_are_read_in_their_order(copy):
    folder = copy / VERSION
    whole = store.read("mnist", str(CUT))
    records = _records(folder / TRAIN)
    (folder / TRAIN).unlink()
    for index, part in enumerate((records[:100], records[100:])):
        _write(folder / f"mnist-train.array_record-{index:05d}-of-00002", part)
    _edit_info(folder, "train", shardLengths=["100", str(len(records) - 100)])
    assert_equal(store.read("mnist", str(copy)), whole)


def test_the_environment_names_the_folder_when_no_option_does(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(CUT))
    assert_equal(store.read("mnist", None), store.read("mnist", str(CUT)))


def test_the_newest_version_is_read(copy):
    found = store.read("mnist", str(copy))
    for old in ("2.9.0", "3.0.0", "10.0.0.incompleteABC"):
        (copy / "mnist" / old).mkdir()
    assert_equal(store.read("mnist", str(copy)), found)


# The cache


def test_a_second_start_reads_the_cache_alone(never_decode):
    first = store.read("mnist", str(CUT))
    never_decode()
    assert_equal(store.read("mnist", str(CUT)), first)


def test_the_cache_is_plain_arrays(cache):
    images, labels = store.read("mnist", str(CUT))["test"]
    (path,) = cache.glob("mnist-3.0.1-test-*.npy")
    with path.open("rb") as file:
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), images)
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), labels)


@pytest.mark.parametrize("cut", [1, 4, 1000, 50_000, "all", "all but four zeros"])
def test_a_cut_off_cache_is_named_and_rebuilt(cache, caplog, cut, never_decode):
    first = store.read("mnist", str(CUT))
    (path,) = cache.glob("*-train-*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-cut] if isinstance(cut, int) else b"" if cut == "all" else bytes(4))
    assert_equal(store.read("mnist", str(CUT)), first)
    assert [str(path) in line and "rebuilding" in line for line in caplog.messages] == [True]
    assert path.read_bytes() == content
    never_decode()
    assert_equal(store.read("mnist", str(CUT)), first)


@pytest.mark.parametrize("position", [0, 9, 40, 5000, -300, -1])
def test_a_flipped_bit_in_the_cache_is_named_and_rebuilt(cache, caplog, position):
    first = store.read("mnist", str(CUT))
    (path,) = cache.glob("*-train-*.npy")
    content = path.read_bytes()
    flip_a_bit(path, position)
    assert_equal(store.read("mnist", str(CUT)), first)
    assert [str(path) in line for line in caplog.messages] == [True]
    assert path.read_bytes() == content


def test_an_unwritable_cache_is_only_a_warning(tmp_path, monkeypatch, caplog):
    first = store.read("mnist", str(CUT))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_equal(store.read("mnist", str(CUT)), first)
    assert ["cannot write the cache" in line for line in caplog.messages] == [True, True]


def test_a_full_disk_leaves_no_half_written_cache(cache, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert len(store.read("mnist", str(CUT))["train"][0]) == 160
    assert list(cache.iterdir()) == []
    assert all("No space left on device" in line for line in caplog.messages)


def test_a_cache_folder_in_the_place_of_the_file_is_only_a_warning(cache, caplog):
    first = store.read("mnist", str(CUT))
    for path in list(cache.iterdir()):
        path.unlink()
        path.mkdir()
    assert_equal(store.read("mnist", str(CUT)), first)
    assert any("cannot read the cache" in line for line in caplog.messages)


def test_a_smaller_cut_and_the_whole_never_mix(tmp_path):
    whole = store.read("mnist", str(CUT))
    cut = runpy.run_path(str(FIXTURES / "cut_mnist.py"))["cut"]
    cut(CUT / VERSION, tmp_path / "small" / VERSION, {"train": 50, "test": 40})
    small = store.read("mnist", str(tmp_path / "small"))
    assert_equal(small, {s: (whole[s][0][:n], whole[s][1][:n]) for s, n in (("train", 50), ("test", 40))})
    assert_equal(store.read("mnist", str(CUT)), whole)


def test_other_examples_in_files_of_the_same_size_never_mix(copy):
    whole = store.read("mnist", str(CUT))
    path = copy / VERSION / TRAIN
    size = path.stat().st_size
    _write(path, _records(path)[::-1])
    assert path.stat().st_size == size
    np.testing.assert_array_equal(store.read("mnist", str(copy))["train"][1], whole["train"][1][::-1])


def test_two_processes_may_write_the_cache_at_once(cache, caplog, never_decode):
    program = "import sys; from fa_jax.tasks import tfds; print(tfds.read('mnist', sys.argv[1])['train'][1].sum())"
    command = [sys.executable, "-c", program, str(CUT)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    assert ends[0] == ends[1]
    assert ends[0][1] == ""
    assert len(list(cache.iterdir())) == 2
    never_decode()
    assert f"{store.read('mnist', str(CUT))['train'][1].sum()}\n" == ends[0][0]
    assert caplog.messages == []


# What is refused


def _records(path):
    reader = ArrayRecordReader(str(path))
    return reader.read(list(range(reader.num_records())))


def _write(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def _edit_info(folder, split, **entries):
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    next(found for found in info["splits"] if found["name"] == split).update(entries)
    path.write_text(json.dumps(info))


def test_a_missing_folder_is_named(tmp_path):
    assert refusal(tmp_path / "nowhere") == (
        f"task.data_dir must be a folder of TFDS data sets; {tmp_path}/nowhere does not exist"
    )


def test_a_file_in_the_place_of_the_folder_is_named():
    assert "cut_mnist.py is not a folder" in refusal(FIXTURES / "cut_mnist.py")


def test_an_empty_folder_is_named_with_the_command_that_fills_it(tmp_path):
    (tmp_path / "empty").mkdir()
    line = refusal(tmp_path / "empty")
    assert line.startswith(f"task.data_dir must be a folder of TFDS data sets; {tmp_path}/empty is empty")
    assert f"TFDS_DATA_DIR={tmp_path}/empty python -c" in line


def test_a_missing_folder_in_the_environment_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(BadOption, match=r"^TFDS_DATA_DIR must be a folder .*/nowhere does not exist$"):
        store.read("mnist", None)


def test_a_missing_data_set_gives_the_command_that_prepares_it():
    assert refusal(CUT, "cifar10") == (
        f"cifar10 is not in {CUT} (task.data_dir); prepare it with: pip install 'fa-jax[prepare]' && "
        f"TFDS_DATA_DIR={CUT} python -c \"import tensorflow_datasets as tfds; tfds.data_source('cifar10')\""
    )


def test_with_no_folder_named_the_command_fills_the_usual_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BadOption) as caught:
        store.read("mnist", None)
    line = str(caught.value)
    assert line.startswith(f"mnist is not in {tmp_path}/tensorflow_datasets (task.data_dir); prepare it with: pip")
    assert "TFDS_DATA_DIR=" not in line


def test_the_command_is_safe_for_a_folder_with_blanks(tmp_path):
    (tmp_path / "my data" / "other").mkdir(parents=True)
    assert f"TFDS_DATA_DIR='{tmp_path}/my data' python" in refusal(tmp_path / "my data")


def test_an_unknown_data_set_lists_the_known_ones():
    assert "task.dataset must be one of mnist, fashion_mnist, cifar10, cifar100; got 'mnits'" in refusal(CUT, "mnits")


@pytest.mark.parametrize("wrong", ["", 3, ["a"]])
def test_a_folder_that_is_no_path_is_refused(wrong):
    with pytest.raises(BadOption, match=r"^task\.data_dir must be the path of a folder, or null; got "):
        store.read("mnist", wrong)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", [TRAIN, TEST, "dataset_info.json"])
def test_a_half_copied_folder_is_refused_by_its_missing_file(copy, name, warm):
    if warm:
        store.read("mnist", str(copy))
    (copy / VERSION / name).unlink()
    assert f"{copy / VERSION / name} is missing" in refusal(copy)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("kept", [0, 10, 70_000, 131_000])
def test_a_cut_off_record_file_is_refused_by_name(copy, kept, warm):
    path = copy / VERSION / TRAIN
    if warm:
        store.read("mnist", str(copy))
    path.write_bytes(path.read_bytes()[:kept])
    line = refusal(copy)
    assert f"{path} is cut off or corrupt" in line or f"{path} holds 0 examples" in line


@pytest.mark.parametrize("position", [100, 3000, 20_000, 45_000])
def test_a_flipped_bit_in_a_record_is_refused_by_the_name_of_its_file(copy, cache, position):
    path = copy / VERSION / TRAIN
    flip_a_bit(path, position)
    assert f"{path} is cut off or corrupt" in refusal(copy)
    assert not list(cache.glob("*train*"))


def test_an_undecodable_record_is_refused_by_the_name_of_its_file(copy):
    path = copy / VERSION / TRAIN
    records = _records(path)
    _write(path, [*records[:50], records[50].replace(b"IDAT", b"XXXX"), *records[51:]])
    assert f"{path} is cut off or corrupt" in refusal(copy)


@pytest.mark.parametrize("promised", ["159", "161", "60000"])
def test_another_number_of_examples_than_promised_is_refused(copy, promised):
    _edit_info(copy / VERSION, "train", shardLengths=[promised])
    assert f"{TRAIN} holds 160 examples instead of {promised}" in refusal(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"fileFormat": "array_record", "splits": []}'])
def test_a_damaged_description_is_refused(copy, content):
    (copy / VERSION / "dataset_info.json").write_text(content)
    assert "dataset_info.json does not describe the record files of the train split" in refusal(copy)


def test_an_empty_split_is_refused(copy):
    _edit_info(copy / VERSION, "test", shardLengths=[])
    assert "dataset_info.json promises no examples for the test split" in refusal(copy)


def test_a_damaged_list_of_features_is_refused(copy):
    (copy / VERSION / "features.json").write_text("{")
    assert f"{copy / VERSION} cannot be opened by TensorFlow Datasets" in refusal(copy)


def test_files_for_tensorflow_alone_are_refused(copy):
    path = copy / VERSION / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    assert "dataset_info.json speaks of tfrecord files, and only array_record can be read" in refusal(copy)


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        (store.Form((28, 28, 1), 5), "holds labels outside 0 to 4"),
        (store.Form((32, 32, 3), 10), "holds images of (28, 28, 1) uint8 instead of (32, 32, 3) uint8"),
    ],
)
def test_examples_of_another_form_are_refused(monkeypatch, form, fault):
    monkeypatch.setitem(store.FORMS, "mnist", form)
    assert f"{TRAIN} {fault}" in refusal(CUT)


def test_reading_keeps_other_loggers_as_they_are(caplog):
    logging.getLogger("absl").setLevel(logging.INFO)
    store.read("mnist", str(CUT))
    assert logging.getLogger("absl").level == logging.INFO
    assert caplog.messages == []


# The whole data sets, where they are

WHOLE = os.environ.get("TFDS_DATA_DIR", "")


def whole(dataset):
    """Marks a test that needs all of a data set."""
    there = WHOLE and Path(WHOLE, dataset).is_dir()
    return pytest.mark.skipif(not there, reason=f"TFDS_DATA_DIR names no folder with {dataset}")


MNIST_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
EVEN_COUNTS = {"train": [5000] * 10, "test": [1000] * 10}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "counts", "means"),
    [
        pytest.param("mnist", MNIST_COUNTS, [0.1307], marks=whole("mnist")),
        pytest.param(
            "fashion_mnist", {"train": [6000] * 10, "test": [1000] * 10}, [0.2860], marks=whole("fashion_mnist")
        ),
        pytest.param("cifar10", EVEN_COUNTS, [0.4914, 0.4822, 0.4465], marks=whole("cifar10")),
    ],
)
def test_whole_data_sets_have_their_known_counts_and_means_and_start_fast(dataset, counts, means):
    first = store.read(dataset, WHOLE)
    for split, expected in counts.items():
        assert np.bincount(first[split][1]).tolist() == expected
    np.testing.assert_allclose(first["train"][0].mean(axis=(0, 1, 2)) / 255, means, atol=5e-5)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        second = store.read(dataset, WHOLE)
        times.append(time.perf_counter() - start)
    assert_equal(second, first)
    assert min(times) < 0.3 * first["train"][0].nbytes / 47e6 + 0.1
