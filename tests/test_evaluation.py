"""Calibration, confusion matrix and top-k accuracy against independent references."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix

from common import evaluation


def test_calibration_against_a_loop():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 10) * 3, torch.randint(10, (500,))
    bins, expected = evaluation.calibration(logits, labels), 0.0
    confidence, prediction = (values.numpy() for values in F.softmax(logits.double(), -1).max(-1))
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        assert bins["count"][i] == inside.sum()
        if inside.any():
            right = (prediction == labels.numpy())[inside].mean()
            expected += inside.mean() * abs(right - confidence[inside].mean())
    assert bins["count"].sum() == 500 and math.isclose(float(bins["ece"]), expected, rel_tol=1e-9)


def test_confusions_and_top_five():
    torch.manual_seed(0)
    logits, labels = torch.randn(500, 10), torch.randint(10, (500,))
    matrix = evaluation.confusion_matrix(labels, logits.argmax(1))
    assert np.array_equal(matrix, confusion_matrix(labels, logits.argmax(1), labels=range(10)))
    top = evaluation.top_confusions(matrix, 90)
    assert sum(count for *_, count in top) == 500 - int(matrix.trace())
    assert [count for *_, count in top] == sorted((count for *_, count in top), reverse=True)
    assert evaluation.top_k(logits, labels, 1) == evaluation.accuracy(logits, labels)
    assert evaluation.top_k(logits, labels, 10) == 100
