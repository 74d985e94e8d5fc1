"""A model's calls seen and replaced while one function is traced, and the model left in peace."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_explain as kx
from keras_explain import backend
from keras_explain.core.model.intercept import intercept, nodes_by_path
from keras_explain.core.model.opened import Compiled, OpenModel
from tests import check, models

SOON = 60  # seconds that a thread may take


def nodes_of(model):
    return [model, *nodes_by_path(model).values()]


def pass_on(node, call, *args, **kwargs):
    return call(*args, **kwargs)


def elsewhere(function):
    """The result of a function that another thread runs meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(SOON)


@pytest.fixture(autouse=True)
def _compiled_functions():
    yield
    tf.config.run_functions_eagerly(False)  # where a test fails, the next ones should not


# Paths


def test_paths_name_layers_and_operations():
    paths = nodes_by_path(models.fresh("functional").model)
    assert {"conv_a", "conv_b", "flatten", "head"} <= {p.rstrip("_0123456789") for p in paths}
    assert sum(not isinstance(node, layers.Layer) for node in paths.values()) == 2


def test_paths_lead_into_nested_models():
    model = models.get("nested_twice").model
    paths = nodes_by_path(model)
    encoder = model.get_layer("encoder")
    assert paths["encoder"] is encoder
    inner = encoder.get_layer("backbone")
    assert paths["encoder/backbone/conv_last"] is inner.get_layer("conv_last")


def test_paths_of_a_subclassed_model():
    model = models.get("subclassed").model
    paths = nodes_by_path(model)
    assert paths["conv"] is model.conv
    assert paths["backbone/norm"] is model.backbone.get_layer("norm")


def test_what_is_used_twice_is_listed_once():
    model = models.get("called_twice").model
    assert len(set(map(id, nodes_by_path(model).values()))) == len(nodes_by_path(model))
    assert [path for path in nodes_by_path(model) if path.startswith("same")] == ["same"]


def test_layers_of_one_name_have_paths_of_their_own():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.pair = [layers.Dense(2, name="twin"), layers.Dense(2, name="twin")]

        def call(self, x):
            return self.pair[0](x) + self.pair[1](x)

    model = Twins()
    model(models.numbers(3))
    paths = nodes_by_path(model)
    assert set(paths) == {"twin", "twin_2"}
    assert paths["twin"] is not paths["twin_2"]


# The hook


def test_the_hook_sees_every_call_in_order():
    model, x = models.get("nested_twice").model, models.numbers(*models.PICTURE)
    paths = {id(node): path for path, node in nodes_by_path(model).items()}
    seen = []

    def hook(node, call, *args, **kwargs):
        seen.append(paths.get(id(node), "model"))
        return call(*args, **kwargs)

    with intercept(nodes_of(model), hook):
        model(x, training=False)
    names = ["model", "encoder", "encoder/backbone", "encoder/backbone/conv_first"]
    assert [path for path in seen if path in names] == names
    assert seen[-1] == "head"


def test_the_hook_sees_raw_operations_of_a_functional_model():
    model, seen = models.get("functional").model, []

    def hook(node, call, *args, **kwargs):
        seen.append(type(node).__name__.lower())
        return call(*args, **kwargs)

    with intercept(nodes_of(model), hook):
        model(models.numbers(*models.PICTURE))
    assert seen.index("add") < seen.index("relu") < seen.index("averagepooling2d")


def test_what_the_hook_returns_is_the_output():
    case = models.get("sequential")
    expected = case.model(-case.x)

    def hook(node, call, *args, **kwargs):
        if isinstance(node, layers.Conv2D):
            return call(-args[0])
        return call(*args, **kwargs)

    with intercept(nodes_of(case.model), hook):
        received = case.model(case.x)
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    assert np.abs(case.model(case.x) - expected).max() > 1e-3


def test_layers_compute_in_float32_meanwhile():
    case = models.get("mixed_bfloat16")
    policies = [layer.dtype_policy.name for layer in case.model.layers]
    with intercept(nodes_of(case.model), pass_on):
        inside = case.model(case.x)
    after = case.model(case.x)
    assert [layer.dtype_policy.name for layer in case.model.layers] == policies
    assert inside.dtype == "float32"
    assert after.dtype == "bfloat16"
    exact = keras.models.clone_model(models.get("mixed_bfloat16").model)
    exact = keras.Sequential.from_config(
        {"name": "exact", "layers": [_in_float32(layer) for layer in exact.layers]}
    )
    exact.set_weights(case.model.get_weights())
    np.testing.assert_allclose(inside, exact(case.x), rtol=1e-5, atol=1e-6)


def _in_float32(layer):
    config = layer.get_config() | {"dtype": "float32"}
    return {"class_name": type(layer).__name__, "config": config}


# Left as it was


class StumbleError(Exception):
    pass


def stumble(node, call, *args, **kwargs):
    if isinstance(node, layers.Dense):
        raise StumbleError
    return call(*args, **kwargs)


@pytest.mark.parametrize("kind", ["nested_twice", "subclassed", "functional", "mixed_bfloat16"])
def test_layers_come_back_after_an_error(kind):
    case = models.get(kind)
    before = check.state_of(case.model)
    with pytest.raises(StumbleError), intercept(nodes_of(case.model), stumble):
        case.model(case.x)
    check.assert_states_equal(check.state_of(case.model), before)
    with pytest.raises(StumbleError), intercept(nodes_of(case.model), pass_on):
        raise StumbleError
    check.assert_states_equal(check.state_of(case.model), before)


def test_the_lock_is_free_after_an_error():
    case = models.get("sequential")
    with pytest.raises(StumbleError), intercept(nodes_of(case.model), stumble):
        case.model(case.x)
    assert elsewhere(lambda: kx.Saliency()(case.model, case.x)).values.any()


def test_a_call_of_the_user_s_own_comes_back():
    """A `call` that someone else has put on the instance is called, and kept."""
    case = models.fresh("tabular")
    head = case.model.get_layer("head")
    of_class = head.call
    head.__dict__["call"] = mine = lambda x: of_class(2 * x)
    expected = case.model(case.x)
    with intercept(nodes_of(case.model), pass_on):
        np.testing.assert_allclose(case.model(case.x), expected, rtol=1e-6)
    assert head.__dict__["call"] is mine


def test_one_inside_another():
    case = models.get("tabular")
    seen = []

    def noted(name):
        def hook(node, call, *args, **kwargs):
            if isinstance(node, layers.Dense):
                seen.append((name, node.name))
            return call(*args, **kwargs)

        return hook

    before = check.state_of(case.model)
    first, last = (layer.name for layer in case.model.layers[1:])
    with intercept(nodes_of(case.model), noted("outer")):
        with intercept(nodes_of(case.model), noted("inner")):
            case.model(case.x)
        assert seen == [("inner", first), ("outer", first), ("inner", last), ("outer", last)]
        seen.clear()
        case.model(case.x)
        assert seen == [("outer", first), ("outer", last)]
    check.assert_states_equal(check.state_of(case.model), before)


class Penalised(layers.Layer):
    """A loss of its own, added in `call`."""

    def call(self, x):
        self.add_loss(ops.mean(x**2))
        return x


def test_losses_stay_those_of_the_last_call():
    case = models.fresh("regularized")
    x = keras.Input(models.PICTURE)
    model = keras.Model(x, case.model(Penalised()(x)))
    model(case.x)
    before = [float(loss) for loss in model.losses]
    assert len(before) == 4
    kx.IntegratedGradients(steps=2)(model, case.x)
    assert [float(loss) for loss in model.losses] == before
    with pytest.raises(StumbleError), intercept(nodes_of(model), stumble):
        model(-2 * case.x)
    assert [float(loss) for loss in model.losses] == before


def test_training_goes_on_with_its_losses():
    """The regularizers count in `fit` as if nothing had been explained."""
    histories = []
    for explained in (False, True):
        case = models.fresh("regularized")
        case.model.optimizer.learning_rate = 0.1
        for _ in range(2):
            if explained:
                kx.GradCAM()(case.model, case.x)
            history = case.model.fit(case.x, np.arange(4), shuffle=False, verbose=0)
            histories.append(history.history["loss"][0])
    assert histories[:2] == histories[2:]


# Explainers and models that fail midway


class _FailsInStep(kx.Explainer):
    def step(self, probe, x, target, pass_):
        probe.gradient(x, target)
        raise RuntimeError("halfway")


class _FailsInFinish(kx.IntegratedGradients):
    def finish(self, probe, total, x):
        raise RuntimeError("halfway")


@pytest.mark.parametrize(
    "kind", ["nested", "subclassed", "tf_function", "mixed_float16", "regularized", "tokens_int"]
)
def test_a_failing_explainer_leaves_the_model_as_it_was(kind):
    case = models.get(kind)
    before, policy = check.state_of(case.model), keras.config.dtype_policy().name
    for failing in (_FailsInStep(), _FailsInFinish(steps=2)):
        with pytest.raises(RuntimeError, match="halfway"):
            failing(case.model, case.x, case.target)
    check.assert_states_equal(check.state_of(case.model), before)
    assert keras.config.dtype_policy().name == policy


@keras.saving.register_keras_serializable("tests")
class _Moody(layers.Layer):
    """It fails when asked to."""

    def call(self, x):
        if getattr(self, "fails", False):
            raise RuntimeError("not now")
        return x


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_failing_layer_leaves_the_model_as_it_was(policy):
    moody = _Moody(dtype=policy)
    x = keras.Input(models.PICTURE)
    h = models.conv("conv", activity_regularizer="l2", dtype=policy)(x)
    model = models.made(x, models.softmax(models.quarters(moody(h))))
    moody.fails = True
    before = check.state_of(model)
    with pytest.raises(RuntimeError, match="not now"):
        kx.GradCAM()(model, models.numbers(*models.PICTURE))
    check.assert_states_equal(check.state_of(model), before)
    moody.fails = False
    assert kx.GradCAM()(model, models.numbers(*models.PICTURE)).values.any()


# Models that write to themselves when they are called


class Counting(keras.Model):
    def __init__(self):
        super().__init__(name="counting")
        self.dense = layers.Dense(3)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return self.dense(x) * self.calls


class Sampling(keras.Model):
    def __init__(self):
        super().__init__(name="sampling")
        self.dense, self.seed = layers.Dense(3), keras.random.SeedGenerator(1)

    def call(self, x):
        return self.dense(x + keras.random.normal((), seed=self.seed)) ** 2


def stateful():
    """A recurrent layer whose state outlives a call."""
    x = keras.Input((6, 5), batch_size=models.ROWS)
    lstm = layers.LSTM(4, stateful=True, return_sequences=True)
    return models.made(x, layers.Dense(3)(layers.Flatten()(lstm(x))))


@pytest.mark.parametrize(
    ("make", "shape"),
    [(Counting, (5,)), (Sampling, (5,)), (stateful, (6, 5))],
    ids=["counting", "sampling", "stateful"],
)
@pytest.mark.parametrize("explainer", [kx.Saliency(), kx.IntegratedGradients(steps=4)], ids=repr)
def test_a_model_that_writes_to_itself_is_left_as_it_was(make, shape, explainer):
    model, x = make(), models.numbers(*shape)
    model(x)
    written = [
        *model.variables,
        *(s for layer in model.layers for s in getattr(layer, "states", [])),
    ]
    before = [ops.convert_to_numpy(variable) for variable in written]
    first, second = explainer(model, x, 1), explainer(model, x, 1)
    check.assert_same(second, first, exactly=True)
    for variable, value in zip(written, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


# Other threads


@pytest.mark.parametrize("kind", ["nested_twice", "subclassed", "functional"])
def test_calls_of_another_thread_pass_through(kind):
    case = models.get(kind)
    expected = case.model(case.x)

    def broken(node, call, *args, **kwargs):
        raise StumbleError

    with intercept(nodes_of(case.model), broken):
        received = elsewhere(lambda: case.model(case.x))
        with pytest.raises(StumbleError):
            case.model(case.x)
    np.testing.assert_array_equal(received, expected)


def test_calls_of_another_thread_keep_their_dtype():
    case = models.get("mixed_bfloat16")
    expected = case.model(case.x)
    with intercept(nodes_of(case.model), pass_on):
        received = elsewhere(lambda: case.model(case.x))
    assert received.dtype == expected.dtype
    np.testing.assert_array_equal(ops.cast(received, "float32"), ops.cast(expected, "float32"))


class Meanwhile(layers.Layer):
    """Lets another thread do something in the middle of a call, once."""

    todo, result = None, None

    def call(self, x):
        todo, self.todo = self.todo, None
        if todo is not None:
            self.result = elsewhere(todo)
        return x


def test_a_thread_may_predict_while_another_explains():
    pause = Meanwhile()
    x = keras.Input(models.PICTURE)
    h = models.conv("conv")(pause(models.conv("first")(x)))
    model = models.made(x, models.softmax(models.quarters(h)), seed=3)
    pictures = models.numbers(*models.PICTURE)
    expected = model(pictures)
    pause.todo = lambda: (model(pictures), model.predict(pictures, verbose=0))
    explanation = kx.Saliency()(model, pictures)
    assert pause.todo is None
    for received in pause.result:
        np.testing.assert_allclose(received, expected, rtol=1e-5)
    check.assert_same(kx.Saliency()(model, pictures), explanation, exactly=True)


def at_once(functions):
    """The results of functions that threads start together."""
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait(SOON)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [done.result(SOON) for done in [pool.submit(run, f) for f in functions]]


@pytest.mark.parametrize("kind", ["mixed_bfloat16", "regularized"])
def test_threads_explain_one_model_at_once(kind, impatient):
    case, other = models.get(kind), models.fresh(kind)
    before = check.state_of(other.model)
    explainers = [
        kx.Saliency(absolute=False),
        kx.InputXGradient(),
        kx.IntegratedGradients(steps=4),
        kx.SmoothGrad(samples=2),
    ]
    expected = [explainer(case.model, case.x, 1) for explainer in explainers]
    received = at_once([lambda e=e: e(other.model, other.x, 1) for e in explainers])
    for a, b in zip(received, expected, strict=True):
        check.assert_same(a, b)
    check.assert_states_equal(check.state_of(other.model), before)


def test_threads_use_what_is_compiled_at_once(impatient):
    case = models.get("tabular")
    explainer = kx.IntegratedGradients(steps=4)
    expected = [explainer(case.model, case.x, k) for k in range(4)]

    def many(k):
        return [explainer(case.model, case.x, k) for _ in range(25)]

    with check.nothing_traced():
        received = at_once([lambda k=k: many(k) for k in range(4)])
    for explanations, one in zip(received, expected, strict=True):
        for explanation in explanations:
            check.assert_same(explanation, one, exactly=True)


def test_threads_look_up_what_is_compiled_at_once(impatient):
    model = OpenModel(models.get("tabular").model)
    function = model.compiled("key", lambda: Compiled(None, None))

    def missing():
        raise AssertionError("It was there.")

    def look_up():
        return all(model.compiled("key", missing) is function for _ in range(20_000))

    assert at_once([look_up] * 4) == [True] * 4


def test_threads_open_functions_of_several_models_at_once(impatient):
    """A `tf.function` inside a model is opened by a global setting of TensorFlow."""
    expected = kx.GradCAM()(*_decorated(models.get("tf_function")))
    cases = [models.fresh("tf_function") for _ in range(3)]
    received = at_once([lambda c=c: kx.GradCAM()(*_decorated(c)) for c in cases])
    assert not tf.config.functions_run_eagerly()
    for explanation in received:
        check.assert_same(explanation, expected)


def _decorated(case):
    return case.model, case.x


# A user's own tf.function


def test_functions_run_as_before_after_one_was_opened():
    case = models.fresh("tf_function")
    runs = []

    @tf.function
    def counted(x):
        runs.append(1)
        return x

    kx.GradCAM()(case.model, case.x)
    assert not tf.config.functions_run_eagerly()
    counted(tf.zeros(3))
    counted(tf.ones(3))
    assert runs == [1]


def test_functions_run_as_before_after_an_error():
    class Failing(kx.Explainer):
        def step(self, probe, x, target, pass_):
            probe.gradient(x, target)
            raise StumbleError

    case = models.fresh("tf_function")
    with pytest.raises(StumbleError):
        Failing()(case.model, case.x)
    assert not tf.config.functions_run_eagerly()


def test_a_function_whose_flow_depends_on_tensors():
    class Branches(keras.Model):
        def __init__(self):
            super().__init__(name="branches")
            self.dense = layers.Dense(3)
            self.dense.build((None, 5))

        @tf.function
        def call(self, x):
            if tf.reduce_sum(x) > 0:
                return self.dense(x)
            return self.dense(-x)

    model = Branches()
    model(models.numbers(5))
    with pytest.raises(ValueError, match=r"tf\.function.*keras\.ops\.cond"):
        kx.Saliency()(model, models.numbers(5))
    assert not tf.config.functions_run_eagerly()


def test_compiling_traces_once():
    traces = []

    def double(x):
        traces.append(1)
        return 2 * x

    function = backend.compile(double, backend.spec(np.zeros((2, 3), "float32")))
    for rows in (1, 5):
        np.testing.assert_array_equal(function(tf.ones((rows, 3))), np.full((rows, 3), 2.0))
    assert traces == [1]
