"""The cache of decoded images, in the user's cache folder: a file for each split, which ends in a checksum."""

import io
import logging
import zlib
from pathlib import Path

import numpy as np
import platformdirs

from fa_jax.records.files import remove_temporary, whole

_log = logging.getLogger("fa_jax")

Labelled = tuple[np.ndarray, np.ndarray]
"""Images, uint8 `[n, height, width, channels]`, and their classes, int32 `[n]`."""


def path_of(name: str) -> Path:
    """Returns the path of a file in the cache."""
    return platformdirs.user_cache_path("fa_jax") / name


def load(path: Path, shape: tuple[int, ...]) -> Labelled | None:
    """Returns a cached split, given the shape of its images; None if it is missing, damaged, or of another shape."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _log.warning("cannot read the cache file %s (%s); decoding the records instead", path, error.strerror)
        return None
    if len(content) <= 4 or zlib.crc32(memoryview(content)[:-4]) != int.from_bytes(content[-4:], "little"):
        _log.warning("the cache file %s is cut off or corrupt; rebuilding it", path)
        return None
    file = io.BytesIO(content)
    try:
        images, labels = np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)
    except (ValueError, EOFError):  # such as an array of Python objects
        images = labels = np.empty(0)
    if (images.shape, labels.shape) != (shape, shape[:1]) or (images.dtype, labels.dtype) != (
        np.uint8,
        np.int32,
    ):
        _log.warning("the cache file %s does not hold arrays of this data set; rebuilding it", path)
        return None
    return images, labels


def save(path: Path, examples: Labelled) -> None:
    """Caches a split: images, classes (both as npy), and their CRC-32; a failure is logged."""
    body = io.BytesIO()
    for array in examples:
        np.save(body, array, allow_pickle=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_temporary(path.parent)
        with whole(path) as file:
            file.write(body.getbuffer())
            file.write(zlib.crc32(body.getbuffer()).to_bytes(4, "little"))
    except OSError as error:
        _log.warning("cannot write the cache file %s (%s); the next start decodes again", path, error.strerror)
