"""predict.py: photos of any size, what it refuses, and the weights that the repository has."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from common import cli, data, evaluation, tables
from common.models import MODELS
from common.support import checkpoints
from common.support.errors import UserError
from project3_wrn import predict
from project3_wrn.method.weights import FACTS, load_network, load_shipped, shipped_path
from project3_wrn.weights import make
from tests.conftest import ROOT, assert_single_error_line

COMMITTED = ROOT / "project3_wrn" / "outputs" / "fast94"
PHOTO = ROOT / "project3_wrn" / "photo.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return a file of LeNet's weights, in a folder of its name."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("outputs") / "lenet" / "weights-0.pt"
    checkpoints.save(path, MODELS["lenet"]().state_dict())
    return path


def test_a_photo_of_any_size(weights, tmp_path, sample, run_in_process):
    """A test image, enlarged and with margins left and right, is predicted as the image itself."""
    image = sample[1].images[7]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((320, 320), Image.NEAREST)
    wide = Image.new("RGB", (500, 320))
    wide.paste(picture, (90, 0))
    wide.save(tmp_path / "photo.png")
    process = run_in_process(predict.main, tmp_path / "photo.png", "--weights", weights)
    assert process.returncode == 0, process.stderr
    with torch.no_grad():
        logits = load_network("lenet", weights)(data.normalize(image[None], data.CIFAR10_STATS))[0]
    expected = F.softmax(logits, 0)
    lines = [line.split() for line in process.stdout.splitlines()[1:6]]
    assert [name for _, name in lines] == [data.CLASSES[label] for label in expected.topk(5).indices]
    for percentage, name in lines:
        assert float(percentage.rstrip("%")) == pytest.approx(
            100 * float(expected[data.CLASSES.index(name)]), abs=0.051
        )
    assert (tmp_path / "photo-gradcam.png").exists()


@pytest.mark.parametrize("kind", ["text", "tiny", "absent", "cut"])
def test_what_is_not_a_photo(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "text":
        path.write_text("not a picture")
    elif kind in ("tiny", "cut"):
        size = (1, 1) if kind == "tiny" else (300, 300)
        Image.effect_noise(size, 50).save(path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:2000])
    messages = {"text": "not an image", "tiny": "1x1", "absent": "No such file", "cut": "cannot read"}
    with pytest.raises(UserError, match=messages[kind]):
        predict.read_photo(path)


def test_a_folder_is_not_a_file_of_weights(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        load_network("lenet", tmp_path)


def test_bad_input_on_the_command_line_is_one_line(tmp_path, run_in_process):
    (tmp_path / "photo.png").write_text("none")
    assert_single_error_line(run_in_process(predict.main, tmp_path / "photo.png"), "not an image", status=1)


def test_weights_of_a_quick_run_say_so(weights, tmp_path, sample, run_in_process):
    (tmp_path / "mine").mkdir()
    shutil.copy(weights, tmp_path / "mine")
    cli.write_json(tmp_path / "mine" / "run.json", {"model": "lenet", "scale": "quick"})
    save_photo(sample[1].images[7], tmp_path / "photo.png")
    process = run_in_process(predict.main, tmp_path / "photo.png", "--weights", tmp_path / "mine" / weights.name)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("QUICK") and "not calibrated" in process.stdout.splitlines()[0]


# --- the repository's weights ---


@pytest.fixture(scope="module")
def shipped():
    return load_shipped()


@pytest.fixture(scope="module")
def held_out():
    saved = tables.load_arrays(FACTS.with_name("held_out.npz"))
    return torch.from_numpy(saved["logits"]), torch.from_numpy(saved["labels"])


def test_shipped_weights_are_small_whole_and_in_half_precision(shipped):
    _, facts = shipped
    path = shipped_path(facts)
    assert path.stat().st_size < 8_000_000
    weights, expected = torch.load(path, weights_only=True), MODELS[facts["model"]]().state_dict()
    assert {name: value.shape for name, value in weights.items()} == {n: v.shape for n, v in expected.items()}
    for value in weights.values():
        assert value.dtype in (torch.float16, torch.int64) and value.isfinite().all()


def test_shipped_weights_give_the_committed_logits(shipped, sample):
    """The run computed in bf16, and gave six views to a fifth of the test images, of which the sample has a part."""
    network, facts = shipped
    saved = tables.load_arrays(COMMITTED / "logits.npz")
    labels = torch.from_numpy(saved["test_labels"])
    of_sample = torch.cat([(labels == label).nonzero().flatten()[:50] for label in range(10)]).sort().values
    assert torch.equal(labels[of_sample], sample[1].labels)
    views = [evaluation.predict_with_tta(network, sample[1], data.CIFAR10_STATS, views) for views in (1, 6)]

    def distance(seed):
        committed = torch.from_numpy(saved[f"{seed}/test"])[of_sample]
        return torch.stack([(logits - committed).abs().amax(1) for logits in views]).amin(0)

    assert distance(facts["seed"]).max() < 0.15  # logits go up to 6, where bf16 has steps of 0.03
    assert distance(facts["seed"] + 1).median() > 0.15


def test_the_accuracy_of_the_shipped_weights_is_that_of_the_committed_run(shipped):
    _, facts = shipped
    (entry,) = [entry for entry in cli.read_json(COMMITTED / "metrics.json", list) if entry["seed"] == facts["seed"]]
    assert facts["test_accuracy"] == pytest.approx(entry["test_accuracy"], abs=0.1)
    assert facts["git_commit"] == cli.read_json(COMMITTED / "run.json")["git_commit"]


def test_the_temperature_is_that_of_the_held_out_images(shipped, held_out):
    """Where the cross-entropy is least, the mean logit of the labels is the one that the probabilities expect."""
    _, facts = shipped
    logits, labels = held_out[0].double(), held_out[1]
    assert labels.bincount().tolist() == [500] * 10
    assert make.fit(*held_out) == {name: facts[name] for name in ("temperature", "unknown_below")}
    probabilities = (logits / facts["temperature"]).softmax(-1)
    expected = (probabilities * logits).sum(-1).mean()
    assert float(expected) == pytest.approx(float(logits.gather(1, labels[:, None]).mean()), abs=1e-3)
    unknown = logits.exp().sum(-1).log() < facts["unknown_below"]
    assert float(unknown.double().mean()) == pytest.approx(0.05, abs=0.001)
    assert make.ece(make.cross_fitted(*held_out), labels) == facts["held_out"]["ece_after"]


def test_a_temperature_that_is_known_is_found():
    """Labels drawn with the probabilities of logits / 3 have a temperature of 3."""
    generator = torch.Generator().manual_seed(0)
    logits = 6 * torch.randn(20_000, 10, generator=generator)
    labels = (logits / 3).softmax(-1).multinomial(1, generator=generator)[:, 0]
    assert make.fit_temperature(logits, labels) == pytest.approx(3, rel=0.03)


def test_a_fresh_clone_predicts_and_explains_another_class(shipped, tmp_path, run_in_process):
    network, facts = shipped
    image = np.array(Image.open(PHOTO))
    flags = ("--target", "ship", "--out", tmp_path / "out.png")
    process = run_in_process(predict.main, PHOTO, *flags)
    assert process.returncode == 0, process.stderr
    first, *lines = process.stdout.splitlines()
    assert f"fast94 (project3_wrn/weights/fast94.pt, test accuracy {facts['test_accuracy']}%)" in first
    x = data.normalize(torch.from_numpy(image.transpose(2, 0, 1).copy())[None], data.CIFAR10_STATS)
    with torch.no_grad():
        logits = evaluation.TTA[facts["views"]](network)(x)[0]
    probabilities = F.softmax(logits / facts["temperature"], 0)
    assert lines[0] == f"{100 * float(probabilities.max()):5.1f}%  {data.CLASSES[probabilities.argmax()]}"
    ship = probabilities[data.CLASSES.index("ship")]
    rank = int((probabilities > ship).sum()) + 1
    assert f"ship: {100 * float(ship):.1f}%, rank {rank} of 10" in lines
    width, height = Image.open(tmp_path / "out.png").size
    assert width > 2 * height  # the photo, the predicted class and the target


def test_the_photo_of_the_example_is_a_test_image(sample):
    image = torch.from_numpy(np.array(Image.open(PHOTO)).transpose(2, 0, 1).copy())
    assert (sample[1].images == image).flatten(1).all(1).sum() == 1


def test_what_looks_like_nothing_known_gets_a_hint(tmp_path, run_in_process):
    Image.effect_noise((64, 64), 80).save(tmp_path / "noise.png")
    process = run_in_process(predict.main, tmp_path / "noise.png")
    assert "may be none of the ten classes" in process.stdout
    assert "may be none" not in run_in_process(predict.main, PHOTO, "--out", tmp_path / "out.png").stdout


def test_several_photos_have_a_picture_each(tmp_path, sample, run_in_process):
    photos = [tmp_path / "a.png", tmp_path / "b.png"]
    for photo, image in zip(photos, sample[1].images):
        save_photo(image, photo)
    assert_single_error_line(run_in_process(predict.main, *photos, "--out", tmp_path / "c.png"), "--out", status=2)
    assert run_in_process(predict.main, *photos).returncode == 0
    assert all((tmp_path / f"{photo.stem}-gradcam.png").exists() for photo in photos)


def save_photo(image, path):
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
