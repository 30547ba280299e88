"""The rules by which a number of a report is compared with ours.

A number is decimal text: its digits say how it was rounded, so 2.06 stands for 2.055 to 2.065 and 6.2e4 for 61,500 to
62,500. A bound is >x or <x, or "not >x" or "not <x": our seeds do not show that it is beyond x.
"""

import re
from decimal import Decimal

import numpy as np

from common import tables

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
FLOAT_ERROR = 1e-9  # relative error of decimal numbers as floats
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
BOUND = re.compile(rf"(not )?([<>])({NUMBER.pattern})")


def is_value(text):
    """Return whether a text is a number or a bound; a word is neither."""
    return bool(NUMBER.fullmatch(text) or BOUND.fullmatch(text))


def is_bound(value):
    return bool(BOUND.fullmatch(value))


def half_unit(number):
    """Return half of the unit of a number's last digit: 0.005 of "2.06"."""
    return 0.5 * 10.0 ** Decimal(number).as_tuple().exponent


def agree(value, values):
    """Return whether our seeds agree with a number or bound; None of a single seed, which has no interval.

    A number agrees within its own rounding and the prediction interval, t * s * sqrt(1 + 1/k) around the mean of k
    seeds: a report's number is that of one run, which varies more than the mean. A bound holds where the confidence
    interval of the mean is beyond it, and "not >x" where it is not. NaN, of a run that ended before, never agrees.
    """
    if len(values) < 2:
        return None
    if not np.isfinite(values).all():
        return False
    if match := BOUND.fullmatch(value):
        negated, sign, limit = match.groups()
        distance = (1 if sign == ">" else -1) * (values.mean() - float(limit))
        return bool(distance > tables.half_width(values, CONFIDENCE)) != bool(negated)
    return lies_within(value, values.mean(), tables.prediction_half_width(values, CONFIDENCE))


def holds(value, number, tolerance=0.0):
    """Return whether a number that has no spread agrees with a number or bound.

    tolerance: by how much `number` may be wrong itself. A bound does not use it.
    """
    if match := BOUND.fullmatch(value):
        negated, sign, limit = match.groups()
        return (number > float(limit) if sign == ">" else number < float(limit)) != bool(negated)
    return lies_within(value, number, tolerance)


def lies_within(value, number, tolerance):
    """Return whether a number is within the tolerance and the rounding of `value`."""
    allowed = tolerance + half_unit(value) + FLOAT_ERROR * abs(number)
    return bool(abs(number - float(value)) <= allowed)


def compatible(value, other):
    """Return whether two numbers or bounds of a report can both be true."""
    if is_bound(other) and not is_bound(value):
        value, other = other, value
    if is_bound(value) and is_bound(other):
        # such as ">0" and "<0": each bound is tried on a number that is just beyond the other one
        return any(holds(value, point) and holds(other, point) for point in points_near(value) + points_near(other))
    return holds(value, float(other), 0.0 if is_bound(value) else half_unit(other))


def points_near(bound):
    """Return the limit of a bound and a number on either side of it."""
    limit = float(BOUND.fullmatch(bound)[3])
    return [limit - 1, limit, limit + 1]
