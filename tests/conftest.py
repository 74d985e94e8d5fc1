"""Set-up that every test shares: quiet libraries, no window, fixed seeds."""

import gc
import os
import sys

# Read once, when the libraries are imported.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # shap would compile for many seconds

import keras
import pytest


@pytest.fixture(autouse=True, scope="module")
def _kept():
    """What a file leaves behind, shared models above all, is not searched for garbage again."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def impatient():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
