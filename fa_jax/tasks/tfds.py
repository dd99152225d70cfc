"""Image data sets as TensorFlow Datasets prepares them, read as whole arrays without TensorFlow.

Any data set with the features `image`, of one size, and `label`, a class, can be read.

Decoding record files takes seconds, so the decoded arrays are cached, see `decoded`: one file for each data set,
version and split. Its name contains a digest of every byte that decoding reads, so that a data set that was changed, or
another one of the same name, has a file of its own. A damaged cache is rebuilt; damaged record files raise an error.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fa_jax.checks import BadOption, nearest
from fa_jax.tasks import decoded
from fa_jax.user.text import printable

_log = logging.getLogger("fa_jax")


class Dataset(NamedTuple):
    """The shape of the examples of a data set."""

    shape: tuple[int, int, int]
    classes: int


DATASETS = {
    "mnist": Dataset((28, 28, 1), 10),
    "fashion_mnist": Dataset((28, 28, 1), 10),
    "cifar10": Dataset((32, 32, 3), 10),
    "cifar100": Dataset((32, 32, 3), 100),
}
"""The data sets that have a task of their own. Other data sets are described by their `features.json`."""
NAME = re.compile(r"[A-Za-z]\w*(/[\w.-]+)?")
"""The name of a data set, perhaps with that of its builder config, such as `emnist/letters`."""
OWN_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+")
"""The name of a class of features that TFDS itself has."""
_BLOCK = 1000  # examples decoded at once
_UNLIKE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)  # of JSON


class Shard(NamedTuple):
    """One record file, and its number of examples."""

    file: Path
    examples: int


class Prepared(NamedTuple):
    """A prepared data set."""

    dataset: str
    option: str
    """The option that named the folder: `data_dir` or `$TFDS_DATA_DIR`."""
    folder: Path
    """The folder of the newest version, as in `mnist/3.0.1`."""

    def damaged(self, path: Path, fault: str) -> BadOption:
        """Returns the error about a damaged file."""
        advice = f"copy or prepare {self.folder} again"
        return BadOption(f"must hold an undamaged copy of {self.dataset}; {path} {fault}; {advice}", self.option)


def read(dataset: str, data_dir: str | None) -> dict[str, decoded.Labelled]:
    """Returns the training and the test split of a prepared data set.

    Args:
      dataset: its name, such as `mnist`.
      data_dir: the TFDS data directory; None: `$TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.

    Returns:
      For `train` and `test` (the split `validation`, if the data set has no other): images, uint8 `[n, height, width,
      channels]`, and classes, int32 `[n]`. The examples are in the fixed pseudo-random order of TFDS.

    Raises:
      BadOption: if there is no such data set, or a file of it is missing or damaged.
    """
    form, prepared = form_of(dataset, data_dir), find(dataset, data_dir)
    try:
        info = (prepared.folder / "dataset_info.json").read_bytes()
        splits = _splits(prepared, info)
        held_out = "validation" if dataset not in DATASETS and "test" not in splits else "test"
        sources = {"train": "train", "test": held_out}
        return {split: _read_split(prepared, form, splits, source) for split, source in sources.items()}
    except FileNotFoundError as error:
        raise prepared.damaged(Path(error.filename or prepared.folder), "is missing") from error
    except OSError as error:
        raise prepared.damaged(Path(error.filename or prepared.folder), f"is unreadable ({error.strerror})") from error


def form_of(dataset: str, data_dir: str | None) -> Dataset:
    """Returns the shape of the examples of a data set; arguments as for `read`.

    Raises:
      BadOption: if it is not prepared, or has other features than an image of one size and a label.
    """
    if isinstance(dataset, str) and dataset in DATASETS:
        return DATASETS[dataset]
    if not isinstance(dataset, str) or not NAME.fullmatch(dataset):
        raise BadOption(f"must be the name of a data set, such as svhn_cropped; got {dataset!r}", "dataset")
    prepared = find(dataset, data_dir)
    path = prepared.folder / "features.json"
    try:
        features = json.loads(path.read_bytes())["featuresDict"]["features"]
        image, classes = features["image"]["image"], int(features["label"]["classLabel"]["numClasses"])
        shape = tuple(int(size) for size in image["shape"]["dimensions"])
    except OSError as error:
        raise prepared.damaged(path, f"is unreadable ({error.strerror})") from error
    except _UNLIKE as error:
        raise BadOption(
            f"must have the features image and label (a class); {path} describes others", "dataset"
        ) from error
    if len(shape) != 3 or min(shape) < 1 or classes < 2 or image.get("dtype", "uint8") != "uint8":
        got = f"{list(shape)} {image.get('dtype')} with {classes} classes"
        raise BadOption(f"must have uint8 images of one size, and classes; {dataset} has {got}", "dataset")
    return Dataset((shape[0], shape[1], shape[2]), classes)


def _read_split(prepared: Prepared, form: Dataset, splits: Mapping[str, Any], split: str) -> decoded.Labelled:
    """Returns a split, from the cache or else from its record files."""
    shards = _shards(prepared, splits, split)
    digest = _digest(prepared.folder, shards)
    name = f"{prepared.dataset.replace('/', '-')}-{prepared.folder.name}-{split}-{digest}.npy"
    cache = decoded.path_of(name)
    examples = decoded.load(cache, (sum(shard.examples for shard in shards), *form.shape))
    if examples is None:
        examples = _decode(prepared, form, split, shards)
        if _digest(prepared.folder, shards) != digest:
            raise prepared.damaged(prepared.folder, f"changed while the {split} split was read")
        decoded.save(cache, examples)
    return examples


def find(dataset: str, data_dir: str | None) -> Prepared:
    """Returns the newest version of a data set; arguments as for `read`.

    Raises:
      BadOption: if it is not prepared; the message has the command that prepares it.
    """
    if data_dir is not None and (not isinstance(data_dir, str) or not data_dir):
        raise BadOption(f"must be the path of a folder, or null; got {data_dir!r}", "data_dir")
    option = "data_dir" if data_dir or not os.environ.get("TFDS_DATA_DIR") else "$TFDS_DATA_DIR"
    named = data_dir or os.environ.get("TFDS_DATA_DIR")
    root = Path(named or "~/tensorflow_datasets").expanduser()
    prepare = f"python -c \"import tensorflow_datasets as tfds; tfds.data_source('{dataset}')\""
    if data_dir:
        prepare = f"TFDS_DATA_DIR={shlex.quote(str(root.absolute()))} {prepare}"
    command = f"prepare it with: pip install 'fa-jax[prepare]' && {prepare}"
    try:
        if named and not root.is_dir():
            fault = "is not a folder" if root.exists() else "does not exist"
            raise BadOption(f"must be a folder of TFDS data sets; {root} {fault}", option)
        if named and not any(root.iterdir()):
            raise BadOption(f"must be a folder of TFDS data sets; {root} is empty; to get {dataset}, {command}", option)
        home = root / dataset
        versions = [p for p in home.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", p.name)] if home.is_dir() else []
    except OSError as error:
        raise BadOption(f"must be a readable folder; {error.filename}: {error.strerror}", option) from error
    if not versions:
        meant = "" if dataset in DATASETS else nearest(dataset, [*DATASETS, *(path.name for path in root.glob("*"))])
        raise BadOption(f"must hold {dataset}, which is not in {root}{meant}; {command}", option)
    return Prepared(dataset, option, max(versions, key=lambda p: [int(part) for part in p.name.split(".")]))


def _splits(prepared: Prepared, info: bytes) -> dict[str, Any]:
    """Returns the entries of `dataset_info.json` by split, each with the format of the files."""
    try:
        content = json.loads(info)
        return {entry["name"]: {**entry, "fileFormat": content["fileFormat"]} for entry in content["splits"]}
    except _UNLIKE as error:
        path = prepared.folder / "dataset_info.json"
        raise prepared.damaged(path, "does not describe the record files") from error


def _shards(prepared: Prepared, splits: Mapping[str, Any], split: str) -> list[Shard]:
    """Returns the record files of a split, as `dataset_info.json` lists them."""
    path = prepared.folder / "dataset_info.json"
    try:
        entry = splits[split]
        written, lengths = entry["fileFormat"], [int(length) for length in entry["shardLengths"]]
        of, dataset = f"of-{len(lengths):05d}", prepared.dataset.partition("/")[0]
        names = [
            entry["filepathTemplate"].format(
                DATASET=dataset, SPLIT=split, FILEFORMAT=written, SHARD_X_OF_Y=f"{index:05d}-{of}"
            )
            for index in range(len(lengths))
        ]
    except _UNLIKE as error:
        raise prepared.damaged(path, f"does not describe the record files of the {split} split") from error
    if written != "array_record":
        raise prepared.damaged(path, f"describes {written} files, and only array_record can be read")
    if sum(lengths) < 1 or min(lengths) < 0:
        raise prepared.damaged(path, f"promises no examples for the {split} split")
    return [
        Shard(prepared.folder / printable(Path(name).name), length) for name, length in zip(names, lengths, strict=True)
    ]


def _digest(folder: Path, shards: list[Shard]) -> str:
    """Returns a digest of the names and contents of the files that a split is decoded from."""
    digest = hashlib.blake2b(digest_size=20)
    for path in (folder / "dataset_info.json", folder / "features.json", *(shard.file for shard in shards)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").digest()
        digest.update(f"{path.name}\0".encode() + content)
    return digest.hexdigest()


def _decode(prepared: Prepared, form: Dataset, split: str, shards: list[Shard]) -> decoded.Labelled:
    """Decodes the record files of a split, after checking their numbers of examples."""
    # Takes half a second, and is not needed if the split is cached.
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    _log.info("decoding %s %s from %s", prepared.dataset, split, prepared.folder)
    for shard in shards:
        try:
            records = ArrayRecordReader(str(shard.file)).num_records()
        except (RuntimeError, ValueError) as error:
            raise prepared.damaged(shard.file, "is cut off or corrupt") from error
        if records != shard.examples:
            raise prepared.damaged(shard.file, f"holds {records} examples instead of {shard.examples}")

    total = sum(shard.examples for shard in shards)
    images, labels = np.empty((total, *form.shape), np.uint8), np.empty(total, np.int32)
    name, root = f"{prepared.dataset}:{prepared.folder.name}", prepared.folder.parents[1 + prepared.dataset.count("/")]
    _check_features(prepared)
    with _without_advice():
        try:
            source: Any = tfds.data_source(name, split=split, data_dir=root, download=False)
        except ImportError:
            raise
        except Exception as error:  # whatever TFDS raises about a damaged features.json
            raise prepared.damaged(prepared.folder, "cannot be opened by TensorFlow Datasets") from error
        stop = 0
        for shard in shards:
            start, stop = stop, stop + shard.examples
            for begin in range(start, stop, _BLOCK):
                block = range(begin, min(begin + _BLOCK, stop))
                try:
                    examples = source.__getitems__(block)
                    pixels = np.stack([example["image"] for example in examples])
                    classes = np.asarray([example["label"] for example in examples])
                except (ImportError, MemoryError):
                    raise
                except Exception as error:  # whatever the readers raise about damaged bytes
                    raise prepared.damaged(shard.file, "is cut off or corrupt") from error
                if pixels.shape[1:] != form.shape or pixels.dtype != np.uint8:
                    fault = f"holds images of {pixels.shape[1:]} {pixels.dtype} instead of {form.shape} uint8"
                    raise prepared.damaged(shard.file, fault)
                if classes.min() < 0 or classes.max() >= form.classes:
                    raise prepared.damaged(shard.file, f"holds labels outside 0 to {form.classes - 1}")
                images[block.start : block.stop], labels[block.start : block.stop] = pixels, classes
    return images, labels


def _check_features(prepared: Prepared) -> None:
    """Checks `features.json`: TFDS would import the module of any class named there, also by JSON within a text.

    Raises:
      BadOption: naming what is not of TFDS itself.
    """
    path, foreign = prepared.folder / "features.json", []

    def keep(pairs):
        for key, value in pairs:
            is_class = key in ("pythonClassName", "python_class_name", "type") and isinstance(value, str)
            if key in ("jsonFeature", "json_feature") or (is_class and not OWN_CLASS.fullmatch(value)):
                foreign.append(value)
        return dict(pairs)

    try:
        json.loads(path.read_bytes(), object_pairs_hook=keep)
    except (ValueError, RecursionError) as error:
        raise prepared.damaged(path, "cannot be read") from error
    if foreign:
        raise prepared.damaged(path, f"names {foreign[0]!r}, which is no feature of TensorFlow Datasets")


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps TFDS from printing advice about image decoders."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        absl.setLevel(level)
