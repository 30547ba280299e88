"""CIFAR-10 on disk: damaged, odd and hostile files in every place that the program reads it from."""

import contextlib
import gzip
import os
import pickle
import random
import shutil
import tarfile
import tempfile
import threading
import tracemalloc
from pathlib import Path

import pytest

from common import data
from common.support import download
from common.support.errors import UserError
from tests.conftest import assert_single_error_line
from tests.small_cifar import archive, put, tree

TRIES = 10  # of each test that damages something at random
ARCHIVES = tuple(download.OFFICIAL)  # of the binary version, of the python version


def flip(raw, chance):
    """Return `raw` with another byte in a random place."""
    place = chance.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ chance.randrange(1, 256)]) + raw[place + 1 :]


def cut(raw, chance):
    return raw[: chance.randrange(len(raw))]


def lengthen(raw, chance):
    return raw + chance.randbytes(chance.randrange(1, 5000))


def within(seconds, function, *arguments):
    """Return what `function` returns or raises; fail if that takes longer, as reading a pipe would."""
    results = []

    def call():
        try:
            results.append((function(*arguments), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"no answer within {seconds} s"
    result, error = results[0]
    if error:
        raise error
    return result


@contextlib.contextmanager
def unprivileged():
    """Run the block as a user who may not read what others lock; root may read everything."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if os.name == "nt":
        pytest.skip("Windows has no permissions of this kind")
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def try_repair(official, folder, damage, chance, capsys):
    """Damage one of the six files in `folder`; assert that `load` replaces it, it alone, and says so in one line."""
    files = official[0]
    put(folder, files)
    victim = chance.choice(list(files))
    (folder / victim).unlink()
    if damage:
        (folder / victim).write_bytes(damage(files[victim], chance))
    before = tree(folder)
    found, source = download.load(folder)
    after = tree(folder)
    assert found == files and list(found) == list(files)
    assert {name: after[name][0] for name in files} == files
    assert {name for name in after if after[name] != before.get(name)} - set(ARCHIVES) == {victim}
    (line,) = capsys.readouterr().out.splitlines()
    assert [name for name in files if name in line] == [victim] and source in line


@pytest.fixture
def full(official, tmp_path, request):
    """Return a folder with both official archives, of which one serves as a source."""
    archive(tmp_path / ARCHIVES[0], official[0])
    archive(tmp_path / ARCHIVES[1], official[1])
    return tmp_path


@pytest.mark.attack("a byte flipped in one of the six files", whole=20)
def test_flipped_byte(attempt, official, full, capsys, record_property):
    record_property("tried", TRIES)
    for chance in map(random.Random, range(TRIES * attempt, TRIES * (attempt + 1))):
        try_repair(official, full, flip, chance, capsys)


@pytest.mark.attack("one of the six files cut off, too long or missing", whole=20)
def test_other_damage(attempt, official, full, capsys, record_property):
    record_property("tried", TRIES)
    (full / ARCHIVES[attempt % 2]).unlink()
    for chance in map(random.Random, range(TRIES * attempt, TRIES * (attempt + 1))):
        try_repair(official, full, chance.choice([cut, lengthen, None]), chance, capsys)


@pytest.mark.attack("one of the six files damaged or missing, and no source", whole=10)
def test_no_source(attempt, official, tmp_path, record_property, run_in_process):
    record_property("tried", TRIES)
    for chance in map(random.Random, range(TRIES * attempt, TRIES * (attempt + 1))):
        put(tmp_path, official[0])
        victim = chance.choice(list(official[0]))
        damage = chance.choice([flip, cut, lengthen, None])
        if damage:
            (tmp_path / victim).write_bytes(damage(official[0][victim], chance))
        else:
            (tmp_path / victim).unlink()
        before = tree(tmp_path)
        process = run_in_process(lambda: data.load("full", tmp_path))
        assert_single_error_line(process, str(tmp_path / victim), "could not obtain", "By hand", status=1)
        assert not [name for name in official[0] if name != victim and name in process.stderr]
        assert tree(tmp_path) == before


def try_archive(official, folder, name, raw):
    """Offer a damaged archive; assert that it is named or gives the right bytes, and that a whole one repairs it."""
    (folder / name).write_bytes(raw)
    before = tree(folder)
    try:
        found = download.load(folder)[0]
    except UserError as problem:
        assert name in str(problem) and len(str(problem).splitlines()) == 1
        assert tree(folder) == before
        other = ARCHIVES[1 - ARCHIVES.index(name)]
        archive(folder / other, official[ARCHIVES.index(other)])
        found, source = download.load(folder)
        assert source.endswith(other)
        (folder / other).unlink()
    assert found == official[0]
    shutil.rmtree(folder / download.BINARY)


@pytest.mark.attack("a byte flipped in an official archive, or the archive cut off", whole=20)
def test_damaged_archive(attempt, official, tmp_path, record_property):
    record_property("tried", TRIES)
    for seed in range(TRIES * attempt, TRIES * (attempt + 1)):
        chance, name = random.Random(seed), ARCHIVES[seed % 2]
        archive(tmp_path / name, official[seed % 2])
        raw = (tmp_path / name).read_bytes()
        try_archive(official, tmp_path, name, chance.choice([flip, cut])(raw, chance))


@pytest.mark.attack("bytes flipped in the images and the heads of members of an archive", whole=20)
def test_damaged_heads(attempt, official, tmp_path, record_property):
    record_property("tried", TRIES)
    for seed in range(TRIES * attempt, TRIES * (attempt + 1)):
        chance, name = random.Random(seed), ARCHIVES[seed % 2]
        archive(tmp_path / name, official[seed % 2])
        raw = bytearray(gzip.decompress((tmp_path / name).read_bytes()))
        raw[chance.randrange(len(raw))] ^= 1  # nearly always in an image
        if seed // 2 % 2:
            with tarfile.open(tmp_path / name) as tar:
                head = chance.choice([member.offset for member in tar])
            raw[head + chance.randrange(512)] = chance.randrange(256)
            raw[head + 124 + chance.randrange(12)] = chance.choice(b"0123456789\x80\xff ")
            raw[head + 156] = chance.choice(b"0123456789LKxgSDMNV\0")
            raw[head + 148 : head + 156] = b" " * 8  # a right checksum, or tarfile looks no further than at that
            raw[head + 148 : head + 155] = b"%06o\0" % sum(raw[head : head + 512])
        try_archive(official, tmp_path, name, gzip.compress(bytes(raw), 1))


def put_odd(path, kind):
    """Make `path` something else than a file."""
    if os.name == "nt" and kind != "folder":
        pytest.skip("Windows has no such files, or lets no user make them")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nothing"))
    elif kind == "link loop":
        path.symlink_to(path)
    else:  # a file of one terabyte, all zeros, that takes no space
        with path.open("wb") as file:
            file.truncate(1 << 40)


ODD = ("pipe", "folder", "device", "dangling link", "link loop", "terabyte")


@pytest.mark.attack("a pipe, device, folder, dangling or looping link or endless file for one of the six files")
@pytest.mark.parametrize("kind", ODD)
def test_odd_file(kind, official, tmp_path):
    put(tmp_path, official[0])
    victim = tmp_path / "data_batch_3.bin"
    victim.unlink()
    put_odd(victim, kind)
    with pytest.raises(UserError, match=r"data_batch_3\.bin.*could not obtain"):
        within(60, download.load, tmp_path)
    before = tree_kinds(tmp_path)
    archive(tmp_path / ARCHIVES[0], official[0])
    if kind == "folder":  # its content may be somebody's
        with pytest.raises(UserError, match=r"cannot write .*data_batch_3\.bin: "):
            download.load(tmp_path)
        (tmp_path / ARCHIVES[0]).unlink()
        assert tree_kinds(tmp_path) == before
    else:
        assert within(60, download.load, tmp_path)[0] == official[0]
        assert not victim.is_symlink() and victim.read_bytes() == official[0][victim.name]


def tree_kinds(folder):
    return {path.name: path.lstat().st_mode for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.attack("a pipe, device, folder or link for an archive or a pickle")
@pytest.mark.parametrize("kind", ODD)
def test_odd_archive(kind, official, tmp_path):
    pickles = tmp_path / "cifar-10-batches-py"
    put(pickles, official[1])
    (pickles / "test_batch").unlink()
    for odd in (tmp_path / ARCHIVES[0], pickles / "test_batch"):
        put_odd(odd, kind)
    archive(tmp_path / ARCHIVES[1], official[1])
    found, source = within(120, download.load, tmp_path)
    assert found == official[0] and source.endswith(ARCHIVES[1])


@pytest.mark.attack("archives, pickles or ~/.keras that may not be read")
@pytest.mark.parametrize("where", ["archive", "pickle", "home", "six files"])
def test_unreadable(where, official, monkeypatch):
    with tempfile.TemporaryDirectory() as name:  # in one of pytest's own folders nobody else may read
        folder, home = Path(name) / "data", Path(name) / "home"
        keras = home / ".keras" / "datasets"
        locked = {
            "archive": folder / ARCHIVES[0],
            "pickle": folder / "data_batch_1",
            "home": home / ".keras",
            "six files": folder / "data_batch_2.bin",
        }[where]
        put(folder, {})
        put(keras, official[1] if where == "home" else {})
        if where == "archive":
            archive(locked, official[0])
        elif where == "pickle":
            put(folder, official[1])
        elif where == "six files":
            put(folder, official[0])
        archive(folder / ARCHIVES[1], official[1])
        for path in (Path(name), folder, home):
            path.chmod(0o777)
        for variable in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(variable, str(home))
        locked.chmod(0)
        with unprivileged():
            if where == "home":
                (folder / ARCHIVES[1]).unlink()
                with pytest.raises(UserError, match="could not obtain"):
                    download.load(folder)
            else:
                found, source = download.load(folder)
                assert found == official[0] and source.endswith(ARCHIVES[1])
        locked.chmod(0o700)


def gzipped_zeros(count):
    """Return `count` MiB of zeros as gzip, by repeating one stream of them."""
    return gzip.compress(bytes(1 << 20), 9) * count


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(**headers):
    """Return an archive whose first member has these headers of its own."""
    info = tarfile.TarInfo("readme.html")
    info.pax_headers = headers
    return gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))


BOMBS = {  # each unpacks to 1 GiB or more, or says so
    "an archive of zeros": lambda: gzipped_zeros(1024),
    "a member": lambda: gzip.compress(header("data_batch_1.bin", 1 << 30)) + gzipped_zeros(1025),
    "another member": lambda: gzip.compress(header("readme.html", 1 << 34)) + gzipped_zeros(1025),
    "a name": lambda: gzip.compress(header("././@LongLink", 1 << 30, tarfile.GNUTYPE_LONGNAME)) + gzipped_zeros(1025),
    "a pax header": lambda: gzip.compress(header("pax", 1 << 30, tarfile.XHDTYPE)) + gzipped_zeros(1025),
    "two million members": lambda: gzip.compress(header("readme.html", 0) * 2000) * 1000,
    "nested names": lambda: gzip.compress((header("name", 2, tarfile.GNUTYPE_LONGNAME) + b"a" * 512) * 2000) * 50,
    "a size of 21 digits": lambda: pax(size="9" * 21),
    "a size that is no number": lambda: pax(**{"GNU.sparse.size": "many", "GNU.sparse.map": "1,2"}),
}


@pytest.mark.attack("an archive that unpacks to a gigabyte or more, or has an impossible size")
@pytest.mark.parametrize("bomb", list(BOMBS))
def test_gzip_bomb(bomb, official, tmp_path, monkeypatch):
    assert download.UNPACKED <= 300e6
    monkeypatch.setattr(download, "UNPACKED", 1 << 24)  # the same in less time
    (tmp_path / ARCHIVES[0]).write_bytes(BOMBS[bomb]())
    archive(tmp_path / ARCHIVES[1], official[1])
    tracemalloc.start()
    found, source = within(100, download.load, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == official[0] and source.endswith(ARCHIVES[1])
    assert peak < 4 * download.UNPACKED


@pytest.mark.attack("no HOME, and no user of this number")
def test_no_home(official, tmp_path, monkeypatch):
    pwd = pytest.importorskip("pwd", reason="Windows has no list of users")

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    archive(tmp_path / ARCHIVES[0], official[0])
    assert download.load(tmp_path)[0] == official[0]


@pytest.mark.attack("a mistyped --data: no such folder, a file, a link loop, a line break, a name too long")
@pytest.mark.parametrize("kind", ["missing", "file", "link loop", "line break", "too long"])
def test_mistyped_folder(kind, official, tmp_path, run_in_process):
    if os.name == "nt" and kind in ("link loop", "line break"):
        pytest.skip("Windows has no such names, or lets no user make such links")
    path = tmp_path / {"line break": "data\n\nfolder", "too long": "d" * 300}.get(kind, "data")
    if kind == "file":
        path.write_bytes(b"notes")
    elif kind == "link loop":
        path.symlink_to(path)
    before = tree(tmp_path)
    process = run_in_process(lambda: data.load("full", path))
    assert_single_error_line(
        process, path.name.splitlines()[0], "--data" if "could not" in process.stderr else "another folder", status=1
    )
    assert process.stderr.count("\n") == 1
    assert kind == "file" or "does not exist: CIFAR-10" in process.stdout
    assert {name for name in tree(tmp_path) if name not in before} <= {path.name}


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.attack("an archive with '..' and absolute paths, links, devices, pipes and members that come twice")
@pytest.mark.parametrize("form", [0, 1])
def test_archive_that_would_write_elsewhere(form, official, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "a" / "data"
    outside.mkdir()
    folder.mkdir(parents=True)
    victim, *others = official[form]
    members = {
        tarfile.TarInfo("../../outside/up"): b"up",
        tarfile.TarInfo(str(outside / "absolute")): b"absolute",
        special("link", tarfile.SYMTYPE, str(outside)): b"",
        tarfile.TarInfo("link/through"): b"through",
        special("cifar-10-batches/hard", tarfile.LNKTYPE, "../../outside/up"): b"",
        special("cifar-10-batches/pipe", tarfile.FIFOTYPE): b"",
        special("cifar-10-batches/device", tarfile.CHRTYPE): b"",
        special(f"linked/{others[0]}", tarfile.SYMTYPE, "/dev/zero"): b"",
        tarfile.TarInfo(f"../../outside/{victim}"): b"the first of two",
    }
    hostile = {victim: official[form][victim], **{name: official[form][name] for name in others}}
    archive(folder / ARCHIVES[form], {**members, **hostile})
    assert download.load(folder)[0] == official[0]
    assert set(tree(folder)) == {
        ARCHIVES[form],
        download.BINARY,
        *(f"{download.BINARY}/{name}" for name in official[0]),
    }
    assert not list(outside.iterdir()) and sorted(path.name for path in tmp_path.iterdir()) == ["a", "outside"]
    # the wrong one of two comes last
    shutil.rmtree(folder / download.BINARY)
    archive(folder / ARCHIVES[form], {**hostile, tarfile.TarInfo(f"again/{victim}"): b"the second of two"})
    with pytest.raises(UserError, match=victim):
        download.load(folder)
    assert not (folder / download.BINARY).exists()


@pytest.mark.attack("a pickle with code, in an archive or unpacked")
@pytest.mark.parametrize("form", ["archive", "folder", "Keras"])
def test_pickle_with_code(form, official, tmp_path):
    marker = tmp_path / "marker"

    class Malicious:
        def __reduce__(self):
            return (marker.write_text, ("run",))

    hostile = official[1] | {"data_batch_2": pickle.dumps(Malicious())}
    pickle.loads(hostile["data_batch_2"])
    assert marker.exists()  # it is one that runs
    marker.unlink()
    if form == "archive":
        archive(tmp_path / ARCHIVES[1], hostile)
    elif form == "folder":
        put(tmp_path / "cifar-10-batches-py", hostile)
    else:
        put(tmp_path / ".keras" / "datasets" / "cifar-10-batches-py", hostile)
    with pytest.raises(UserError, match="data_batch_2 has MD5"):
        download.load(tmp_path)
    assert not marker.exists()
