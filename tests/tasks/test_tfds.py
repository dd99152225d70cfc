"""Reading TFDS data sets: the arrays, the cache, and what is refused."""

import io
import itertools
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from fa_jax.checks import BadOption
from fa_jax.tasks import tfds
from tests.conftest import CUT_MNIST

FIXTURES = Path(__file__).parents[1] / "fixtures"
VERSION = Path("mnist", "3.0.1")
TRAIN = "mnist-train.array_record-00000-of-00001"
TEST = "mnist-test.array_record-00000-of-00001"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no data directory unless a test names one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path / "cache" / "fa_jax"


@pytest.fixture
def copy(tmp_path):
    """A copy of the TFDS data directory, to be damaged."""
    shutil.copytree(CUT_MNIST, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def never_decode(monkeypatch):
    """Makes decoding an error from its call on."""

    def forbid():
        monkeypatch.setattr(tfds, "_decode", lambda *arguments: pytest.fail("decoded the records again"))

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
    """The line with which a data directory is refused."""
    with pytest.raises(BadOption) as caught:
        tfds.read(dataset, str(data_dir))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The arrays


def test_arrays_hold_the_examples_that_tfds_reads_one_by_one():
    for split, (images, labels) in tfds.read("mnist", str(CUT_MNIST)).items():
        source = tensorflow_datasets.data_source("mnist", split=split, data_dir=CUT_MNIST, download=False)
        assert (images.shape, images.dtype) == ((len(source), 28, 28, 1), np.uint8)
        assert (labels.shape, labels.dtype) == ((len(source),), np.int32)
        for i, example in enumerate(source):
            np.testing.assert_array_equal(images[i], example["image"])
            assert labels[i] == example["label"]


def test_a_block_size_that_does_not_divide_the_examples_gives_the_same_arrays(monkeypatch):
    whole = tfds._decode(*decode_arguments(CUT_MNIST))
    monkeypatch.setattr(tfds, "_BLOCK", 37)
    for x, y in zip(whole, tfds._decode(*decode_arguments(CUT_MNIST)), strict=True):
        np.testing.assert_array_equal(x, y)


def decode_arguments(data_dir):
    prepared = tfds.find("mnist", str(data_dir))
    info = (prepared.folder / "dataset_info.json").read_bytes()
    return prepared, tfds.DATASETS["mnist"], "train", tfds._shards(prepared, tfds._splits(prepared, info), "train")


def test_several_record_files_are_read_in_order(copy):
    folder = copy / VERSION
    whole = tfds.read("mnist", str(CUT_MNIST))
    records = _records(folder / TRAIN)
    (folder / TRAIN).unlink()
    for index, part in enumerate((records[:100], records[100:])):
        _write(folder / f"mnist-train.array_record-{index:05d}-of-00002", part)
    _edit_info(folder, "train", shardLengths=["100", str(len(records) - 100)])
    assert_equal(tfds.read("mnist", str(copy)), whole)


def test_without_the_option_the_environment_names_the_folder(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(CUT_MNIST))
    assert_equal(tfds.read("mnist", None), tfds.read("mnist", str(CUT_MNIST)))


def test_the_newest_version_is_read(copy):
    examples = tfds.read("mnist", str(copy))
    for other in ("2.9.0", "3.0.0", "10.0.0.incompleteABC"):
        (copy / "mnist" / other).mkdir()
    assert_equal(tfds.read("mnist", str(copy)), examples)


# The cache


def test_a_second_start_reads_only_the_cache(never_decode):
    first = tfds.read("mnist", str(CUT_MNIST))
    never_decode()
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)


def test_the_cache_holds_plain_arrays(cache):
    images, labels = tfds.read("mnist", str(CUT_MNIST))["test"]
    (path,) = cache.glob("mnist-3.0.1-test-*.npy")
    with path.open("rb") as file:
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), images)
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), labels)


@pytest.mark.parametrize("cut", [1, 4, 1000, 50_000, "all", "all but four zeros"])
def test_a_truncated_cache_is_reported_and_rebuilt(cache, caplog, cut, never_decode):
    first = tfds.read("mnist", str(CUT_MNIST))
    (path,) = cache.glob("*-train-*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-cut] if isinstance(cut, int) else b"" if cut == "all" else bytes(4))
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)
    assert [str(path) in line and "rebuilding" in line for line in caplog.messages] == [True]
    assert path.read_bytes() == content
    never_decode()
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)


@pytest.mark.parametrize("position", [0, 9, 40, 5000, -300, -1])
def test_a_flipped_bit_in_the_cache_is_reported_and_rebuilt(cache, caplog, position):
    first = tfds.read("mnist", str(CUT_MNIST))
    (path,) = cache.glob("*-train-*.npy")
    content = path.read_bytes()
    flip_a_bit(path, position)
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)
    assert [str(path) in line for line in caplog.messages] == [True]
    assert path.read_bytes() == content


def test_an_unwritable_cache_gives_a_warning(tmp_path, monkeypatch, caplog):
    first = tfds.read("mnist", str(CUT_MNIST))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)
    assert ["cannot write the cache" in line for line in caplog.messages] == [True, True]


def test_a_full_disk_leaves_no_incomplete_cache(cache, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert len(tfds.read("mnist", str(CUT_MNIST))["train"][0]) == 160
    assert list(cache.iterdir()) == []
    assert all("No space left on device" in line for line in caplog.messages)


def test_a_folder_in_the_place_of_the_cache_file_gives_a_warning(cache, caplog):
    first = tfds.read("mnist", str(CUT_MNIST))
    for path in list(cache.iterdir()):
        path.unlink()
        path.mkdir()
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)
    assert any("cannot read the cache" in line for line in caplog.messages)


def test_data_sets_of_different_sizes_have_different_caches(tmp_path):
    whole = tfds.read("mnist", str(CUT_MNIST))
    cut = runpy.run_path(str(FIXTURES / "cut_mnist.py"))["cut"]
    cut(CUT_MNIST / VERSION, tmp_path / "small" / VERSION, {"train": 50, "test": 40})
    small = tfds.read("mnist", str(tmp_path / "small"))
    assert_equal(small, {s: (whole[s][0][:n], whole[s][1][:n]) for s, n in (("train", 50), ("test", 40))})
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), whole)


def test_different_examples_in_files_of_the_same_size_have_different_caches(copy):
    whole = tfds.read("mnist", str(CUT_MNIST))
    path = copy / VERSION / TRAIN
    size = path.stat().st_size
    _write(path, _records(path)[::-1])
    assert path.stat().st_size == size
    np.testing.assert_array_equal(tfds.read("mnist", str(copy))["train"][1], whole["train"][1][::-1])


def test_a_record_changed_in_place_in_the_middle_of_a_long_file_has_another_cache(copy):
    path, copies = copy / VERSION / TRAIN, 8
    records = _records(path) * copies
    _edit_info(copy / VERSION, "train", shardLengths=[str(len(records))])
    _write(path, records)
    genuine, content = tfds.read("mnist", str(copy))["train"][1], path.read_bytes()
    pairs = itertools.combinations(range(40), 2)
    i, j = next(p for p in pairs if len({len(records[k]) for k in p}) == 1 and genuine[p[0]] != genuine[p[1]])
    records[i], records[j] = records[j], records[i]
    _write(path, records)
    assert len(path.read_bytes()) == len(content)
    assert path.read_bytes()[-(1 << 18) :] == content[-(1 << 18) :]
    changed = tfds.read("mnist", str(copy))["train"][1]
    assert (changed[i], changed[j]) == (genuine[j], genuine[i])
    path.write_bytes(content)
    np.testing.assert_array_equal(tfds.read("mnist", str(copy))["train"][1], genuine)


def test_a_changed_features_json_has_another_cache(copy, cache):
    tfds.read("mnist", str(copy))
    features = copy / VERSION / "features.json"
    features.write_text(features.read_text() + "\n")
    tfds.read("mnist", str(copy))
    assert len(list(cache.iterdir())) == 4


def test_a_data_set_that_changes_while_it_is_decoded_is_refused_and_not_cached(copy, cache, monkeypatch):
    decode = tfds._decode

    def decode_and_change(*arguments):
        examples = decode(*arguments)
        flip_a_bit(copy / VERSION / TRAIN, 100)
        return examples

    monkeypatch.setattr(tfds, "_decode", decode_and_change)
    assert f"{copy / VERSION} changed while the train split was read" in refusal(copy)
    assert not cache.exists()


def replace_arrays(path, arrays, *, allow_pickle=False):
    """Puts other arrays with a valid checksum into a cache file."""
    body = io.BytesIO()
    for array in arrays:
        np.save(body, array, allow_pickle=allow_pickle)
    path.write_bytes(body.getvalue() + zlib.crc32(body.getvalue()).to_bytes(4, "little"))


class Touch:
    """Unpickled, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("foreign", ["pickled", "float images", "too few", "one array"])
def test_foreign_arrays_in_the_cache_are_neither_unpickled_nor_used(cache, tmp_path, caplog, foreign):
    first = tfds.read("mnist", str(CUT_MNIST))
    (path,) = cache.glob("*-train-*.npy")
    images, labels = first["train"]
    arrays = {
        "pickled": (np.array([Touch(tmp_path / "executed")], object), labels),
        "float images": (images.astype(np.float32), labels),
        "too few": (images[:50], labels[:50]),
        "one array": (images,),
    }[foreign]
    replace_arrays(path, arrays, allow_pickle=True)
    assert_equal(tfds.read("mnist", str(CUT_MNIST)), first)
    assert not (tmp_path / "executed").exists()
    assert [str(path) in line and "rebuilding" in line for line in caplog.messages] == [True]


def test_two_processes_can_write_the_cache_at_once(cache, caplog, never_decode):
    program = "import sys; from fa_jax.tasks import tfds; print(tfds.read('mnist', sys.argv[1])['train'][1].sum())"
    command = [sys.executable, "-c", program, str(CUT_MNIST)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    assert ends[0] == ends[1]
    assert ends[0][1] == ""
    assert len(list(cache.iterdir())) == 2
    never_decode()
    assert f"{tfds.read('mnist', str(CUT_MNIST))['train'][1].sum()}\n" == ends[0][0]
    assert caplog.messages == []


# Refusals


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
    next(entry for entry in info["splits"] if entry["name"] == split).update(entries)
    path.write_text(json.dumps(info))


def test_a_missing_folder_is_refused(tmp_path):
    assert refusal(tmp_path / "nowhere") == (
        f"data_dir must be a folder of TFDS data sets; {tmp_path}/nowhere does not exist"
    )


def test_a_file_in_the_place_of_the_folder_is_refused():
    assert "cut_mnist.py is not a folder" in refusal(FIXTURES / "cut_mnist.py")


def test_an_empty_folder_is_refused_with_the_command_that_fills_it(tmp_path):
    (tmp_path / "empty").mkdir()
    line = refusal(tmp_path / "empty")
    assert line.startswith(f"data_dir must be a folder of TFDS data sets; {tmp_path}/empty is empty")
    assert f"TFDS_DATA_DIR={tmp_path}/empty python -c" in line


def test_a_missing_folder_in_the_environment_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(BadOption, match=r"^\$TFDS_DATA_DIR must be a folder .*/nowhere does not exist$"):
        tfds.read("mnist", None)


def test_a_missing_data_set_is_refused_with_the_command_that_prepares_it():
    assert refusal(CUT_MNIST, "cifar10") == (
        f"data_dir must hold cifar10, which is not in {CUT_MNIST}; prepare it with: pip install 'fa-jax[prepare]' && "
        f"TFDS_DATA_DIR={CUT_MNIST} python -c \"import tensorflow_datasets as tfds; tfds.data_source('cifar10')\""
    )


def test_without_a_named_folder_the_command_fills_the_default_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BadOption) as caught:
        tfds.read("mnist", None)
    line = str(caught.value)
    assert line.startswith(
        f"data_dir must hold mnist, which is not in {tmp_path}/tensorflow_datasets; prepare it with: pip"
    )
    assert "TFDS_DATA_DIR=" not in line


def test_the_command_quotes_a_folder_with_spaces(tmp_path):
    (tmp_path / "my data" / "other").mkdir(parents=True)
    assert f"TFDS_DATA_DIR='{tmp_path}/my data' python" in refusal(tmp_path / "my data")


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    assert "; did you mean 'mnist'?" in refusal(CUT_MNIST, "mnits")
    for name in ("../mnist", "mnist'; rm", "", 3):
        assert "dataset must be the name of a data set" in refusal(CUT_MNIST, name)


@pytest.mark.parametrize("wrong", ["", 3, ["a"]])
def test_a_folder_that_is_not_a_path_is_refused(wrong):
    with pytest.raises(BadOption, match=r"^data_dir must be the path of a folder, or null; got "):
        tfds.read("mnist", wrong)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", [TRAIN, TEST, "dataset_info.json", "features.json"])
def test_an_incomplete_copy_is_refused_with_the_missing_file(copy, name, warm):
    if warm:
        tfds.read("mnist", str(copy))
    (copy / VERSION / name).unlink()
    assert f"{copy / VERSION / name} is missing" in refusal(copy)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("kept", [0, 10, 70_000, 131_000])
def test_a_truncated_record_file_is_refused(copy, kept, warm):
    path = copy / VERSION / TRAIN
    if warm:
        tfds.read("mnist", str(copy))
    path.write_bytes(path.read_bytes()[:kept])
    line = refusal(copy)
    assert f"{path} is cut off or corrupt" in line or f"{path} holds 0 examples" in line


@pytest.mark.parametrize("position", [100, 3000, 20_000, 45_000])
def test_a_flipped_bit_in_a_record_is_refused(copy, cache, position):
    path = copy / VERSION / TRAIN
    flip_a_bit(path, position)
    assert f"{path} is cut off or corrupt" in refusal(copy)
    assert not list(cache.glob("*train*"))


def test_an_undecodable_record_is_refused(copy):
    path = copy / VERSION / TRAIN
    records = _records(path)
    _write(path, [*records[:50], records[50].replace(b"IDAT", b"XXXX"), *records[51:]])
    assert f"{path} is cut off or corrupt" in refusal(copy)


HOSTILE = (
    {"shardLengths": [float("inf")]},
    {"filepathTemplate": "{NOBODY}"},
    {"filepathTemplate": 3},
    {"shardLengths": 7},
)


@pytest.mark.parametrize("entry", HOSTILE)
def test_entries_of_other_types_are_refused(copy, entry):
    _edit_info(copy / VERSION, "train", **entry)
    assert "dataset_info.json does not describe the record files of the train split" in refusal(copy)


def test_a_record_file_lies_in_the_folder_of_its_data_set(copy):
    outside = copy.parent / "mine\0"
    _edit_info(copy / VERSION, "train", filepathTemplate=str(outside))
    assert f"{copy / VERSION}/mine\\x00 is missing" in refusal(copy)


@pytest.mark.parametrize("promised", ["159", "161", "60000"])
def test_a_wrong_number_of_examples_is_refused(copy, promised):
    _edit_info(copy / VERSION, "train", shardLengths=[promised])
    assert f"{TRAIN} holds 160 examples instead of {promised}" in refusal(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[" * 10**5, '{"fileFormat": "array_record", "splits": []}'])
def test_a_damaged_dataset_info_is_refused(copy, content):
    (copy / VERSION / "dataset_info.json").write_text(content)
    line = refusal(copy)
    assert "dataset_info.json does not describe the record files" in line
    assert ("of the train split" in line) == ("splits" in content)


def test_an_empty_split_is_refused(copy):
    _edit_info(copy / VERSION, "test", shardLengths=[])
    assert "dataset_info.json promises no examples for the test split" in refusal(copy)


def test_a_damaged_features_json_is_refused(copy):
    (copy / VERSION / "features.json").write_text("{")
    assert f"{copy / VERSION / 'features.json'} cannot be read" in refusal(copy)


FOREIGN = (
    {"pythonClassName": "stranger.Image", "image": {}},
    {"python_class_name": "stranger.Image"},
    {"type": "stranger.Image", "content": {}},
    {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image", "jsonFeature": {"json": "{}"}},
    {"pythonClassName": "tensorflow_datasets.core.features.stranger"},
)
"""Features for which TFDS would import a module that they name, the fourth by JSON within a text."""


@pytest.mark.parametrize("feature", FOREIGN)
def test_a_data_set_imports_no_module(copy, tmp_path, monkeypatch, feature):
    (tmp_path / "stranger.py").write_text("raise AssertionError('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = copy / VERSION / "features.json"
    content = json.loads(path.read_text())
    content["featuresDict"]["features"]["label"]["extra"] = [feature]
    path.write_text(json.dumps(content))
    assert "which is no feature of TensorFlow Datasets" in refusal(copy)


def test_files_other_than_array_record_are_refused(copy):
    path = copy / VERSION / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    assert "dataset_info.json describes tfrecord files, and only array_record can be read" in refusal(copy)


@pytest.mark.parametrize(
    ("dataset", "fault"),
    [
        (tfds.Dataset((28, 28, 1), 5), "holds labels outside 0 to 4"),
        (tfds.Dataset((32, 32, 3), 10), "holds images of (28, 28, 1) uint8 instead of (32, 32, 3) uint8"),
    ],
)
def test_examples_of_another_shape_or_class_are_refused(monkeypatch, dataset, fault):
    monkeypatch.setitem(tfds.DATASETS, "mnist", dataset)
    assert f"{TRAIN} {fault}" in refusal(CUT_MNIST)


def test_reading_leaves_other_loggers_unchanged(caplog):
    logging.getLogger("absl").setLevel(logging.INFO)
    tfds.read("mnist", str(CUT_MNIST))
    assert logging.getLogger("absl").level == logging.INFO
    assert caplog.messages == []


# The whole data sets, if they are on this machine

WHOLE = os.environ.get("TFDS_DATA_DIR", "")


def whole(dataset):
    """Marks a test that needs all of a data set."""
    is_available = WHOLE and Path(WHOLE, dataset).is_dir()
    return pytest.mark.skipif(not is_available, reason=f"TFDS_DATA_DIR names no folder with {dataset}")


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
def test_a_whole_data_set_has_its_known_counts_and_means_and_is_cached(dataset, counts, means):
    first = tfds.read(dataset, WHOLE)
    for split, expected in counts.items():
        assert np.bincount(first[split][1]).tolist() == expected
    np.testing.assert_allclose(first["train"][0].mean(axis=(0, 1, 2)) / 255, means, atol=5e-5)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        second = tfds.read(dataset, WHOLE)
        times.append(time.perf_counter() - start)
    assert_equal(second, first)
    assert min(times) < 0.3 * first["train"][0].nbytes / 47e6 + 0.1
