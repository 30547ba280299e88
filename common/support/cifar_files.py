"""CIFAR-10 on disk: the six files of the official binary version and the two of the embedded sample.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). A file is a sequence of records of one label
byte and 3 x 32 x 32 pixel bytes, channels first.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.support.errors import UserError

FILES = {  # MD5s of the official binary version
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
SAMPLE = Path(__file__).parent / "sample"
SAMPLE_FILES = {  # written by common/support/sample/make.py
    "train.bin": "1bde375ab64ecf105bad882f1372b1f0",
    "test.bin": "cde13d4fda8b222417a25a4728b716b0",
}
IMAGES_PER_FILE = 10_000
TEST_IMAGES = IMAGES_PER_FILE
TRAIN_IMAGES = (len(FILES) - 1) * IMAGES_PER_FILE
RECORD_BYTES = 1 + 3 * 32 * 32
LABELS = 10
LARGEST = 1 << 25  # bytes, more than a file of any version of CIFAR-10 has


def md5(raw: bytes) -> str:
    """Return the MD5 of `raw` in hexadecimal digits."""
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def read(path: Path, expected_md5: str) -> bytes:
    """Return the content of a binary file.

    Raises:
        UserError: the file cannot be read, or its MD5 is another.
    """
    try:
        raw = read_start(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if md5(raw) != expected_md5:
        raise UserError(f"{path} is damaged: its MD5 is {md5(raw)}, not {expected_md5}")
    return raw


def read_start(path: Path) -> bytes:
    """Return the first LARGEST bytes of a file, which is all of it where it is one of CIFAR-10's.

    Raises:
        OSError: it cannot be read, or it is none: reading a pipe would wait for ever.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError("it is not a file")
    with path.open("rb") as file:
        return file.read(LARGEST)


def decode(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Split binary records into images uint8 (N, 3, 32, 32) and labels int64 (N,).

    Raises:
        UserError: the bytes are not a whole number of records, or a label is not 0-9.
    """
    if not raw or len(raw) % RECORD_BYTES:
        raise UserError(
            f"{len(raw)} bytes are not a whole number of CIFAR-10 records of {RECORD_BYTES} bytes;"
            " download the file again"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= LABELS:
        raise UserError(f"label {labels.max()} in record {labels.argmax()} is out of range 0-9; this is not CIFAR-10")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def encode(labels: Sequence[int], pixels: np.ndarray) -> bytes:
    """Return binary records from labels (N,) and pixels uint8 (N, 3072), channels first."""
    return np.concatenate([np.asarray(labels, np.uint8)[:, None], pixels], axis=1).tobytes()
