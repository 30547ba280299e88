"""Six small files that stand in for those of CIFAR-10, in each form that the official ones come in."""

import hashlib
import io
import pickle
import tarfile

from common.support import cifar_files, download

IMAGES = 80  # per file


def stand_in(dataset, home, monkeypatch):
    """Have the checks take six small files for the official ones; return them as binary files and as pickles.

    No host is a source any more, and `home` is the home folder.
    """
    files, pickles = {}, {}
    for position, name in enumerate(cifar_files.FILES):
        chunk = dataset[IMAGES * position : IMAGES * (position + 1)]
        pixels = chunk.images.flatten(1).numpy()
        files[name] = cifar_files.encode(chunk.labels.numpy(), pixels)
        batch = {b"labels": chunk.labels.tolist(), b"data": pixels}
        pickles[name.removesuffix(".bin")] = pickle.dumps(batch, protocol=2)
    monkeypatch.setattr(download, "FILES", {name: md5(raw) for name, raw in files.items()})
    monkeypatch.setattr(download, "PICKLES", {name: md5(raw) for name, raw in pickles.items()})
    monkeypatch.setattr(download, "_remote", lambda: iter(()))
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    return files, pickles


def md5(raw):
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def archive(path, members):
    """Write a .tar.gz of {name: bytes}; a TarInfo may stand for a name, to be what it says."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, raw in members.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(f"cifar-10-batches/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


def put(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def tree(folder):
    """Return {path: (bytes or what it is, inode)} of all below `folder`; locks, which stay, are not listed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name != ".lock":
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else path.lstat().st_mode
            found[str(path.relative_to(folder))] = (content, path.lstat().st_ino)
    return found
