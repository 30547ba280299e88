"""Photos from strangers: predict.py reads a picture rightly or refuses it in one line, whatever the file is."""

import io
import os
import signal
import stat
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, features

from common.support.errors import UserError
from project3_wrn import predict
from tests.conftest import assert_single_error_line, run_python

FORMATS = ("PNG", "JPEG", "PPM", "SGI", "DDS", "QOI", "AVIF", "GIF", "WEBP", "BMP", "TIFF", "ICO", "TGA", "PCX")
MUTATIONS = 15  # of one attempt, in each format
PIXELS = 48


def read(path):
    """Return the photo as an array, or the line that refuses it; every other end is a failure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.asarray(predict.read_photo(path))
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return str(error)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *chunks):
    """Return a grey PNG of 8 bits with these chunks between its header and its pixels, which are those of 8x8."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 9 * 8))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def bomb():
    """Return a deflated stream of a few kilobytes that fills 100 MB."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(100)) + packer.flush()


def ico(picture):
    """Return an icon whose one picture, said to be of 16x16, is this PNG."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(picture), 22) + picture


@pytest.mark.attack("a photo that unpacks to far more than its file, or claims 10,000,000,000 pixels")
def test_bombs(tmp_path, record_property):
    files = {
        "text.png": png(8, 8, chunk(b"zTXt", b"Comment\0\0" + bomb())),
        "international.png": png(8, 8, chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb())),
        "profile.png": png(8, 8, chunk(b"iCCP", b"profile\0\0" + bomb())),
        "huge.png": png(100_000, 100_000),
        "inside.ico": ico(png(100_000, 100_000)),
        "huge.pgm": b"P5 100000 100000 255\n" + bytes(100),
    }
    record_property("tried", len(files))
    tracemalloc.start()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert isinstance(read(tmp_path / name), str), name
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert "100,000,000 pixels" in read(tmp_path / "huge.png")
    assert "100,000,000 pixels" in read(tmp_path / "inside.ico")


@pytest.mark.attack("a photo with random bytes changed or its end cut off", short=1, whole=40)
def test_mutations(attempt, tmp_path, record_property):
    generator = np.random.default_rng(attempt)
    picture = Image.fromarray(generator.integers(0, 256, (PIXELS, PIXELS, 3), np.uint8))
    tried, refused = 0, 0
    for kind in FORMATS:
        if kind == "AVIF" and not features.check("avif"):
            continue
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        whole, path = buffer.getvalue(), tmp_path / f"photo.{kind.lower()}"
        path.write_bytes(whole)
        assert read(path).shape[2] == 3, kind
        for number in range(MUTATIONS):
            changed = bytearray(whole)
            reach = (40, len(whole))[number % 2]  # half of them in the header
            for _ in range(generator.integers(1, 6)):
                changed[generator.integers(reach)] = generator.integers(256)
            cut = generator.integers(len(whole)) if number % 5 == 4 else len(whole)
            path.write_bytes(changed[:cut])
            found = read(path)
            assert isinstance(found, str) or (found.dtype == np.uint8 and found.shape[2] == 3)
            tried, refused = tried + 1, refused + isinstance(found, str)
    record_property("tried", tried)
    assert tried > refused > tried // 10


@pytest.mark.attack("a grey photo of 16 bits, big or little endian, or of floating-point numbers")
def test_more_than_8_bits(tmp_path, record_property):
    """The gradient's mean is 127; clipped to 8 bits it would be 254."""
    gradient = np.linspace(0, 65535, PIXELS * PIXELS).reshape(PIXELS, PIXELS)
    expected = gradient.astype(np.uint16) >> 8
    pixels = gradient.astype(">u2").tobytes()
    tags = [(256, PIXELS), (257, PIXELS), (258, 16), (259, 1), (262, 1), (273, 200), (277, 1), (278, PIXELS)]
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    entries += struct.pack(">HHII", 279, 4, 1, len(pixels))
    big = b"MM\0*" + struct.pack(">IH", 8, len(tags) + 1) + entries + bytes(4)
    (tmp_path / "big.tiff").write_bytes(big.ljust(200, b"\0") + pixels)
    (tmp_path / "grey.pgm").write_bytes(f"P5 {PIXELS} {PIXELS} 65535\n".encode() + pixels)
    for name in ("grey.png", "grey.tiff"):
        Image.fromarray(gradient.astype(np.uint16)).save(tmp_path / name)
    for name in ("grey.png", "grey.tiff", "big.tiff", "grey.pgm"):
        found = read(tmp_path / name)
        assert not isinstance(found, str), found
        assert np.array_equal(found, np.stack([expected] * 3, -1)), name
    for name, kind in {"float.tiff": np.float32, "integer.tiff": np.int32}.items():
        Image.fromarray((gradient / 65535).astype(kind)).save(tmp_path / name)
        assert "32 bits" in read(tmp_path / name)
    record_property("tried", 6)


@pytest.mark.attack("a pipe, a device that never ends or a folder in place of a photo")
def test_what_is_not_a_file(tmp_path, record_property):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    names = ("pipe.png", "zeros.png", "loop.png", "")
    record_property("tried", len(names))

    def give_up(number, frame):
        raise TimeoutError("it reads without an end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        found = [read(tmp_path / name) for name in names]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert all("is not a file" in line or "cannot read" in line for line in found), found
    assert "without an end" not in "".join(found)


@pytest.mark.attack("a PostScript program in place of a photo")
def test_nothing_is_run(tmp_path, monkeypatch):
    """Pillow would give it to Ghostscript, which is here a program that leaves a mark."""
    if os.name == "nt":
        pytest.skip("it needs a program on PATH that is a shell script")
    ghostscript, mark = tmp_path / "gs", tmp_path / "mark"
    ghostscript.write_text(f"#!/bin/sh\ntouch {mark}\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n%%EOF\n")
    assert "not run" in read(photo) and not mark.exists()


@pytest.mark.attack("a photo with a name that is no text")
def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as file:
            Image.effect_noise((PIXELS, PIXELS), 80).save(file, "PNG")
    except OSError:
        pytest.skip("this file system takes no such names")
    missing = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xea.png")
    process = run_python("project3_wrn/predict.py", os.fsdecode(name), missing)
    assert_single_error_line(process, "cannot read", "caf", status=1)
    assert os.path.exists(os.fsencode(tmp_path) + b"/caf\xe9-gradcam.png")
