"""While explainers run, nothing that is of the whole process changes, also not for a moment."""

import contextlib
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings

import keras
import numpy as np
import pytest
import sklearn.linear_model  # noqa: F401 - its first import adds filters of warnings
import tensorflow as tf

import keras_explain as kx
from tests import check, models


def settings():
    """What is of all threads, and can be read quickly."""
    return {
        "run_functions_eagerly": tf.config.functions_run_eagerly(),
        "filters of warnings": (id(warnings.filters), len(warnings.filters)),
        "warnings.showwarning": warnings.showwarning,
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "dtype_policy": keras.config.dtype_policy().name,
        "image_data_format": keras.config.image_data_format(),
        "traceback filtering": keras.config.is_traceback_filtering_enabled(),
        "jit": tf.config.optimizer.get_jit(),
        "errstate": tuple(np.geterr().values()),
        "environment": hash(frozenset(os.environ.items())),
        "folder": os.getcwd(),
        "path": tuple(sys.path),
        "standard streams": (id(sys.stdout), id(sys.stderr)),
        "recursion limit": sys.getrecursionlimit(),
        "SIGINT": signal.getsignal(signal.SIGINT),
        "locale": locale.setlocale(locale.LC_ALL),
        "logging": (logging.root.level, logging.root.manager.disable, len(logging.root.handlers)),
        "garbage collection": gc.isenabled(),
        "random": hash(random.getstate()),
    }


class Beside:
    """Another thread, which looks at what is everybody's, draws, and runs a function of its own."""

    def __init__(self):
        self.changes, self.rounds, self.traces = set(), 0, 0
        self._stop = threading.Event()
        self._first = settings()
        self._threads = settings_of_blas()

        @tf.function
        def own(x):
            self.traces += 1
            return x + 1

        self._own = own

    def run(self):
        drawn = np.random.RandomState(7)
        np.random.seed(7)  # noqa: NPY002
        while not self._stop.is_set():
            for name, value in settings().items():
                if value != self._first[name]:
                    self.changes.add(name)
            if not np.array_equal(np.random.rand(50), drawn.rand(50)):  # noqa: NPY002
                self.changes.add("numpy.random")
            self._own(tf.zeros(()))
            self.rounds += 1
            if self.rounds % 20 == 0 and settings_of_blas() != self._threads:
                self.changes.add("BLAS threads")

    @contextlib.contextmanager
    def __call__(self):
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            while not self.rounds:
                time.sleep(0.001)
            yield self
        finally:
            self._stop.set()
            thread.join()


def settings_of_blas():
    threadpoolctl = pytest.importorskip("threadpoolctl")  # a dependency of scikit-learn
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]


def explained(cls, kind):
    case = models.get(kind)
    rows = keras.tree.map_structure(lambda leaf: leaf[:3], case.x)
    check.explainer_for(cls, rows, case.model)(case.model, rows, case.target)


@pytest.mark.filterwarnings("ignore:.* is zero everywhere")
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("cls", check.each_class())
def test_other_threads_see_no_change(cls):
    kind = "nested_twice" if cls is kx.CAM else "functional"
    explained(cls, kind)  # what is loaded and traced once
    with Beside()() as beside:
        while beside.rounds < 8:
            explained(cls, kind)
    assert beside.changes == set()
    assert beside.traces == 1


SPECIAL = {
    "tf_function": (lambda: kx.GradCAM(), "tf_function"),
    "correlations": (lambda: kx.PartitionSHAP(background=models.numbers(5), samples=9), "tabular"),
    "lasso_path": (
        lambda: kx.LIME(samples=20, top_features=2, selection="lasso_path"),
        "tabular",
    ),
    "lasso": (lambda: kx.LIME(samples=20, regression="lasso", alpha=0.001), "tabular"),
    "half_precision": (lambda: kx.IntegratedGradients(steps=2), "mixed_bfloat16"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", check.first_of(SPECIAL, 2))
def test_other_threads_see_no_change_where_it_was_needed(name):
    make, kind = SPECIAL[name]
    case = models.fresh(kind)
    with Beside()() as beside:
        for _ in range(3):
            make()(case.model, case.x)
            case.model.__dict__.pop("__kx__", None)  # traced once more
    assert beside.changes == set()
    assert beside.traces == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["mixed_bfloat16", "tokens_float", "regularized"])
def test_other_threads_predict_and_save_the_same_model_meanwhile(kind):
    case = models.fresh(kind)
    expected, config = case.model(case.x), case.model.get_config()
    policies = [layer.dtype_policy.name for layer in case.model.layers]
    stop, wrong = threading.Event(), set()

    def use():
        while not stop.is_set():
            if not np.array_equal(case.model(case.x), expected):
                wrong.add("outputs")
            if case.model.get_config() != config:
                wrong.add("configuration")
            if [layer.dtype_policy.name for layer in case.model.layers] != policies:
                wrong.add("policies")
            if len(case.model.losses) != losses:
                wrong.add("losses")

    losses = len(case.model.losses)
    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(3):
            kx.Saliency()(case.model, case.x)
            case.model.__dict__.pop("__kx__", None)
    finally:
        stop.set()
        thread.join()
    assert wrong == set()


@pytest.mark.usefixtures("impatient")
def test_another_model_trains_meanwhile():
    histories = []
    for beside in (False, True):
        keras.utils.set_random_seed(0)
        trained, case = models.fresh("regularized"), models.fresh("tf_function")
        thread = threading.Thread(target=lambda c=case: kx.GradCAM()(c.model, c.x))
        if beside:
            thread.start()
        history = trained.model.fit(trained.x, np.arange(4), epochs=3, shuffle=False, verbose=0)
        histories.append(history.history["loss"])
        if beside:
            thread.join()
    assert histories[0] == histories[1]


def test_the_rehearsal_of_a_training_hides_no_warnings_from_others():
    case = models.fresh("tabular")
    logger = kx.callbacks.ExplanationLogger(kx.Saliency(), case.x, sinks=[])
    logger.set_model(case.model)
    with Beside()() as beside:
        logger.on_train_begin()
    assert beside.changes == set()
