"""predict.py: photos of any size, and what it refuses."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from common import data
from common.models import MODELS
from common.support import checkpoints
from common.support.errors import UserError
from project3_wrn import predict
from project3_wrn.method.weights import load_network
from tests.conftest import assert_single_error_line


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
    lines = [line.split() for line in process.stdout.splitlines() if "%" in line]
    assert [name for _, name in lines] == [data.CLASSES[label] for label in expected.topk(5).indices]
    for percentage, name in lines:
        assert float(percentage.rstrip("%")) == pytest.approx(100 * float(expected[data.CLASSES.index(name)]), abs=0.01)
    assert Image.open(tmp_path / "photo-gradcam.png").size == (320, 320)


class Malicious:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("kind", ["text", "tiny", "huge", "absent", "cut"])
def test_what_is_not_a_photo(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    if kind == "text":
        path.write_text("not a picture")
    elif kind in ("tiny", "cut"):
        size = (1, 1) if kind == "tiny" else (300, 300)
        Image.effect_noise(size, 50).save(path)
        if kind == "cut":
            path.write_bytes(path.read_bytes()[:2000])
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path)
    messages = {
        "text": "not an image",
        "tiny": "1x1",
        "huge": "20000x20000",
        "absent": "No such file",
        "cut": "cannot read",
    }
    with pytest.raises(UserError, match=messages[kind]):
        predict.read_photo(path)


@pytest.mark.parametrize("kind", ["malicious", "of another network", "cut", "a folder"])
def test_weights_that_are_refused(weights, tmp_path, capsys, kind):
    path = tmp_path / "weights-0.pt"
    if kind == "malicious":
        path.write_bytes(pickle.dumps(Malicious(), protocol=2))
    elif kind == "cut":
        path.write_bytes(weights.read_bytes()[:5000])
    elif kind == "a folder":
        path.mkdir()
    else:
        torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="weights-0"):
        load_network("lenet", path)
    assert capsys.readouterr().out == ""


def test_bad_input_on_the_command_line_is_one_line(tmp_path, run_in_process):
    (tmp_path / "weights.pt").write_bytes(b"")
    (tmp_path / "photo.png").write_text("none")
    flags = (tmp_path / "photo.png", "--weights", tmp_path / "weights.pt")
    assert_single_error_line(run_in_process(predict.main, *flags), "not an image", status=1)


def test_without_weights_it_says_how_to_get_some(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "TASK", tmp_path)
    with pytest.raises(UserError, match=r"run python project3_wrn/main\.py first"):
        predict.newest_weights()
