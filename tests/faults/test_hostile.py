"""Files from strangers: checkpoints, weights and results are read as they were written, or refused in one line."""

import copy
import io
import json
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from common import cli, data, training
from common.learners import Learner, StackedBatches, StackedLearner
from common.models import MODELS
from common.support import checkpoints
from common.support.checkpoints import Checkpoint
from common.support.errors import UserError
from project3_wrn.method import weights as weights_module
from project3_wrn.method.weights import FACTS, load_network, load_shipped, shipped_path

# --- checkpoints ---


def learner_of(kind):
    """Return a small learner and its early stopping: one network that has some, or a stack of two."""
    torch.manual_seed(0)
    if kind == "stack":
        models = [[MODELS["lenet"]()], [MODELS["lenet"]()]]
        return StackedLearner(models, lr=[0.01], momentum=[0.9], weight_decay=[0.0], batch_size=20), None
    model = MODELS["lenet"](dropout=0.0)
    return Learner(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)), training.EarlyStopping()


def fit(path, kind, sample, epochs=2):
    """Train, or resume from the checkpoint `path`; return the losses of all batches."""
    learner, stopping = learner_of(kind)
    batches = [data.Batches(sample[0][:40], 20, seed=seed, stats=data.TUTORIAL_STATS) for seed in (0, 1)]
    parts = StackedBatches(batches) if kind == "stack" else batches[0]
    history = training.fit(
        learner,
        parts,
        epochs,
        evaluate=lambda: {"val_accuracy": torch.full(learner.shape, 50.0)},
        early_stopping=stopping,
        checkpoint=Checkpoint(path, {"lr": 0.01}),
    )
    return history["batch_losses"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sample):
    """Return {kind: (checkpoint, losses of two epochs that nothing stopped)}.

    The checkpoint is that after one epoch or, of "a network within an epoch", after one more step.
    """
    folder, found = tmp_path_factory.mktemp("checkpoints"), {}
    for kind in ("network", "stack"):
        fit(folder / f"{kind}.pt", kind, sample, 1)
        found[kind] = folder / f"{kind}.pt", fit(folder / "straight" / f"{kind}.pt", kind, sample)
    within, real, steps = folder / "within.pt", Learner.step, []

    def stop_in_step_4(self, x, y):
        steps.append(1)
        if len(steps) == 4:  # an epoch has two
            raise KeyboardInterrupt
        return real(self, x, y)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "INTERVAL", 0)
        patch.setattr(Learner, "step", stop_in_step_4)
        fit(within, "network", sample)
    assert len(checkpoints.load(within, "", "")["partial"]["losses"]) == 1
    found["a network within an epoch"] = within, found["network"][1]
    return found


def equal(one, other):
    """Return whether two documents of tensors and plain values are the same to the bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return same and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, (dict, list, tuple)) and type(one) is type(other):
        pairs = zip(one.items(), other.items()) if isinstance(one, dict) else zip(one, other)
        return len(one) == len(other) and all(equal(*pair) for pair in pairs)
    return type(one) is type(other) and one == other


def damage(whole, generator, cut=False):
    """Return a file's bytes with one bit flipped, or cut off; in half of the cases near its end."""
    start = len(whole) - min(len(whole), 6000) if generator.integers(2) else 0
    place = int(generator.integers(start, len(whole)))
    if cut:
        return whole[:place]
    changed = bytearray(whole)
    changed[place] ^= 1 << generator.integers(8)
    return bytes(changed)


@pytest.mark.attack("a checkpoint with one bit flipped or its end cut off", short=1, whole=10)
def test_damaged_checkpoints(attempt, trained, tmp_path, record_property):
    generator, path, tries = np.random.default_rng(attempt), tmp_path / "run.pt", 200
    whole = trained["network"][0].read_bytes()
    original, refused = checkpoints.load(trained["network"][0], "checkpoint", ""), 0
    for number in range(tries):
        path.write_bytes(damage(whole, generator, cut=number % 2))
        try:
            assert equal(checkpoints.load(path, "checkpoint", "start over"), original)
        except checkpoints.Damaged as problem:
            refused += 1
            assert "\n" not in str(problem) and "run.pt" in str(problem) and "start over" in str(problem)
    assert refused > 0.6 * tries  # all that are cut off
    record_property("tried", tries)


def places(document, where=()):
    """Yield the place of everything in a document of dicts and lists, as a tuple of keys."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        yield (*where, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*where, key))


def crafted(document, place, value):
    """Return a copy of a document with `value` at a place, or without it where `value` is ..."""
    changed = copy.deepcopy(document)
    *above, key = place
    parent = changed
    for name in above:
        parent = parent[name]
    if value is ...:
        del parent[key]
    else:
        parent[key] = value
    return changed


def resume(document, kind, sample, path, losses):
    """Resume from a document; return whether it was refused, in one line. Accepted, it must end as `losses`."""
    checkpoints.discard(path)
    torch.save(document, path)
    try:
        found = fit(path, kind, sample)
    except UserError as error:
        assert "\n" not in str(error) and "run.pt" in str(error) and "--fresh" in str(error)
        return True
    assert np.array_equal(found, losses)
    return False


VALUES = (..., None, "text", [], {}, True, 7, -5, 2.5, torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), [None])


@pytest.mark.attack("a checkpoint without one of its keys, or with a value of another type or shape", short=1, whole=6)
@pytest.mark.parametrize("kind", ["network", "stack", "a network within an epoch"])
def test_crafted_checkpoints(attempt, kind, trained, sample, tmp_path, record_property):
    """Everything in the document that a training writes is replaced by everything that it is not."""
    path, losses = trained[kind]
    original, refused, tried = checkpoints.load(path, "checkpoint", ""), 0, 0
    generator = np.random.default_rng(attempt)
    for place in places(original):
        values = VALUES if len(place) == 1 else [VALUES[number] for number in generator.choice(len(VALUES), 3)]
        for value in values:
            old = value_at(original, place)
            if (value is not ... and equal(value, old)) or (len(place) > 1 and is_number(value) and is_number(old)):
                continue  # a number of the right kind in a file that is whole is what was written
            if "state" in place and (value is ... or isinstance(value, dict)):
                continue  # an optimizer has no state of a parameter without gradients
            refused += resume(crafted(original, place, value), kind, sample, tmp_path / "run.pt", losses)
            tried += 1
    record_property("tried", tried)
    assert refused > 0.9 * tried


def is_number(value):
    return isinstance(value, (int, float))


def value_at(document, place):
    for key in place:
        document = document[key]
    return document


@pytest.mark.attack("a checkpoint of other settings, of another network, or of another kind of training")
def test_checkpoints_of_others(trained, sample, tmp_path, record_property):
    original = checkpoints.load(trained["network"][0], "checkpoint", "")
    torch.manual_seed(0)
    other = MODELS["lightweight_resnet"]()
    networks = {
        "other settings": (original | {"settings": {"lr": 0.1}}, "network"),
        "a stack": (original, "stack"),
        "a network": (checkpoints.load(trained["stack"][0], "checkpoint", ""), "network"),
        "another network": (
            original | {"learner": Learner(other, torch.optim.SGD(other.parameters(), lr=0.01)).state_dict()},
            "network",
        ),
        "adam": (
            original
            | {"learner": Learner(MODELS["lenet"](), torch.optim.Adam(MODELS["lenet"]().parameters())).state_dict()},
            "network",
        ),
    }
    record_property("tried", len(networks))
    for document, kind in networks.values():
        assert resume(document, kind, sample, tmp_path / "run.pt", None)


class Malicious:
    """A pickle of it leaves a mark where it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def hostile_files(mark):
    """Return {name: bytes} of files that are called .pt; most would run code where pickle reads them."""
    evil = pickle.dumps(Malicious(mark), protocol=2)
    zipped, legacy, tarred, packed, meta = (io.BytesIO() for _ in range(5))
    torch.save({"settings": Malicious(mark)}, zipped)
    torch.save({"settings": Malicious(mark)}, legacy, _use_new_zipfile_serialization=False)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name in ("pickle", "storages", "tensors", "sys_info"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            archive.addfile(entry, io.BytesIO(evil))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    torch.save(torch.nn.Linear(2, 2), meta)
    streams = {"zip": zipped, "legacy": legacy, "tar": tarred, "bomb": packed, "module": meta}
    return {"raw": evil, "empty": b"", "text": b"text", **{name: s.getvalue() for name, s in streams.items()}}


@pytest.mark.attack("a pickle with code, or a packed bomb, as checkpoint or as weights")
def test_nothing_is_run(trained, sample, tmp_path, record_property):
    mark, path = tmp_path / "mark", tmp_path / "run.pt"
    files = hostile_files(mark)
    record_property("tried", 3 * len(files))
    for name, content in files.items():
        checkpoints.discard(path)
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a valid checkpoint") as error:
            fit(path, "network", sample)
        assert "\n" not in str(error.value) and path.read_bytes() == content, name
        with pytest.raises(UserError, match="not a valid file of weights"):
            load_network("lenet", path)
        # an older generation is taken, and gives what a training that nothing stopped gives
        checkpoints.previous_path(path).write_bytes(trained["network"][0].read_bytes())
        assert np.array_equal(fit(path, "network", sample), trained["network"][1])
    assert not mark.exists()


# --- weights ---


def weights_that_are_none():
    """Return {name: change of LeNet's state_dict}."""
    first = "conv1.weight"
    big = torch.zeros(1).expand(1_000_000, 1_000_000)
    return {
        "nan": lambda w: w[first].view(-1)[:1].fill_(float("nan")),
        "infinity": lambda w: w[first].view(-1)[:1].fill_(float("inf")),
        "too large": lambda w: w.update({first: torch.full_like(w[first], 1e300, dtype=torch.float64)}),
        "integers": lambda w: w.update({first: w[first].long()}),
        "complex": lambda w: w.update({first: w[first].to(torch.complex64)}),
        "bool": lambda w: w.update({first: w[first] > 0}),
        "sparse": lambda w: w.update({first: w[first].to_sparse()}),
        "meta": lambda w: w.update({first: w[first].to("meta")}),
        "huge": lambda w: w.update({first: big}),
        "transposed": lambda w: w.update({first: w[first].transpose(0, 1)}),
        "missing": lambda w: w.pop(first),
        "more": lambda w: w.update(more=torch.zeros(1)),
        "renamed": lambda w: w.update({"module." + first: w.pop(first)}),
        "text": lambda w: w.update({first: "text"}),
        "numbers as names": lambda w: w.update({3: torch.zeros(1)}),
    }


@pytest.mark.attack("weights that are not finite, of other shapes, names or kinds, or of another network")
def test_weights(tmp_path, record_property):
    path = tmp_path / "weights-0.pt"
    changes = weights_that_are_none()
    documents = [None, [], "text", {}, 3, torch.zeros(3), MODELS["lightweight_resnet"]().state_dict()]
    for change in changes.values():
        document = MODELS["lenet"]().state_dict()
        change(document)
        documents.append(document)
    record_property("tried", len(documents))
    for document in documents:
        torch.save(document, path)
        with pytest.raises(UserError, match=r"weights-0\.pt ") as error:
            load_network("lenet", path)
        assert "\n" not in str(error.value)


@pytest.mark.attack("one byte changed in the weights of the repository")
def test_shipped_weights(tmp_path, monkeypatch, record_property):
    whole, tries = shipped_path(cli.read_json(FACTS)).read_bytes(), 10
    shutil.copy(FACTS, tmp_path)
    monkeypatch.setattr(weights_module, "FACTS", tmp_path / FACTS.name)
    monkeypatch.setattr(checkpoints, "load", lambda *arguments: pytest.fail("it was read"))
    generator = np.random.default_rng(0)
    for _ in range(tries):
        (tmp_path / "fast94.pt").write_bytes(damage(whole, generator))
        with pytest.raises(UserError, match="restore it"):
            load_shipped()
    record_property("tried", tries)


@pytest.mark.attack("the facts on the repository's weights without a value, or with one of another type")
def test_shipped_facts(tmp_path, monkeypatch, record_property):
    """They are refused in one line, or what predict.py takes of them is all there."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    shutil.copy(shipped_path(facts), tmp_path)
    monkeypatch.setattr(weights_module, "FACTS", tmp_path / FACTS.name)
    monkeypatch.setattr(weights_module, "load_network", lambda model, path: MODELS[model] and None)
    used = ("model", "file", "sha256", "test_accuracy", "views", "temperature", "unknown_below")
    documents = [[], "text", None, *({n: v for n, v in facts.items() if n != name} for name in used)]
    documents += [facts | {name: value} for name in used[:3] for value in (None, [], {"a": 1}, "../text", 7)]
    documents += [facts | {name: value} for name in used[4:] for value in (None, [], {"a": 1}, "text")]
    record_property("tried", len(documents))
    for document in documents:
        (tmp_path / FACTS.name).write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(UserError) as error:
            load_shipped()
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
