"""Hostile calls of every explainer: each gives finite values, or an error of our own."""

import numpy as np
import pytest

import keras_explain as kx
from benchmarks import fuzz


def wrong(calls, seed):
    every = list(fuzz.verdicts(calls, seed))
    assert len(every) == calls
    assert {found for _, _, found, _ in every} >= {"value", "error"}
    return [verdict for verdict in every if verdict[2] not in ("value", "error")]


def test_some_hostile_calls():
    assert wrong(25, seed=1) == []


@pytest.mark.slow
def test_many_hostile_calls():
    assert wrong(5000, seed=0) == []


def test_the_verdicts():
    table = fuzz.subjects()["table"]

    def explained(**options):
        return fuzz.verdict(lambda: kx.Saliency()(table.model, table.x, **options))[0]

    def foreign():
        np.ones(2) + np.ones(3)

    assert explained() == "value"
    assert explained(seed=-1) == "error"
    assert fuzz.verdict(foreign)[0] == "foreign error"
    assert fuzz.verdict(lambda: kx.Saliency(typo=1))[0] == "error"
    broken = kx.Saliency()(table.model, table.x)
    broken.values.setflags(write=True)
    broken.values[0] = np.nan
    assert fuzz.verdict(lambda: broken)[0] == "broken value"
