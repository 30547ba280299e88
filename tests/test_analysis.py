"""Project 3's tables, sentences and figures of one network."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix

from common import cli, data, evaluation, plots, tables
from common.support.translations import CHINESE
from project3_wrn import batch_epoch_grid, compare_models, ensemble, improvements, label_audit
from project3_wrn.analysis import figures, label_errors, result_tables
from project3_wrn.method.recipes import RECIPES
from tests.conftest import ROOT

OUTPUTS = ROOT / "project3_wrn" / "outputs"
