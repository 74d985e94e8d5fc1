"""The methods that draw samples, by `keras_explain` and by other libraries.

`METHODS[method][contestant](task, budget)` prepares a contestant and returns a function of a seed
that explains all rows of the task: it returns the values, and how many passes (or gradients) a row
took, about `budget`. `UnsuitedError` is raised where a contestant cannot. Other libraries are given
what suits them: a compiled function of which features are present, and our hiding, kernel and
penalty.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_explain as kx
from benchmarks.tasks import Task
from benchmarks.truths import KEEP, NOISE, RIDGE, WIDTH

Work = Callable[[int], tuple[np.ndarray, float]]
Prepare = Callable[[Task, int], Work]
AT_ONCE = 256  # rows in a batch of the libraries that ask for it


class UnsuitedError(Exception):
    """What a contestant cannot do."""


def ours(make: Callable[[Task, int], kx.Explainer]) -> Prepare:
    def prepare(task: Task, budget: int) -> Work:
        explainer = make(task, budget)
        return lambda seed: (explainer(task.model, task.x, task.target, seed=seed).values, budget)

    return prepare


def each_row(explain: Callable[[Callable, int, int, int], Any]) -> Prepare:
    """A library that explains a function of which features are present, row by row.

    Args:
        explain: Returns the values of the features, `[M]`, of a function, the number of features, a
            budget and a seed.
    """

    def prepare(task: Task, budget: int) -> Work:
        def work(seed: int) -> tuple[np.ndarray, float]:
            asked: list[int] = []

            def counted(game: Callable) -> Callable:
                return lambda present: asked.append(len(present)) or game(present)

            rows = range(len(task.x))
            found = [explain(counted(task.game(row)), task.count, budget, seed) for row in rows]
            return task.placed(np.array(found)), sum(asked) / len(rows)

        return work

    return prepare


# shap and shapiq


def _seed_numpy(seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002, shap draws from this generator


def shap_kernel(game: Callable, count: int, budget: int, seed: int) -> np.ndarray:
    import shap

    _seed_numpy(seed)
    explainer = shap.KernelExplainer(game, np.zeros((1, count)))
    return explainer.shap_values(np.ones(count), nsamples=budget, l1_reg=False, silent=True)


def shap_selecting(game: Callable, count: int, budget: int, seed: int) -> np.ndarray:
    """As `shap_kernel` by default: with a choice of features by the lasso."""
    import shap

    _seed_numpy(seed)
    explainer = shap.KernelExplainer(game, np.zeros((1, count)))
    return explainer.shap_values(np.ones(count), nsamples=budget, silent=True)


def shap_permutation(game: Callable, count: int, budget: int, seed: int) -> np.ndarray:
    import shap

    if budget <= 2 * count:
        raise UnsuitedError("needs more than 2 evaluations a feature")
    masker = shap.maskers.Independent(np.zeros((1, count)))
    explainer = shap.PermutationExplainer(game, masker, seed=seed)
    return explainer(np.ones((1, count)), max_evals=budget, silent=True).values[0]


def shap_sampling(game: Callable, count: int, budget: int, seed: int) -> np.ndarray:
    import shap

    _seed_numpy(seed)
    explainer = shap.SamplingExplainer(game, np.zeros((1, count)))
    return explainer.shap_values(np.ones((1, count)), nsamples=budget)[0]


def shapiq_kernel(game: Callable, count: int, budget: int, seed: int) -> np.ndarray:
    import shapiq

    sampler = shapiq.KernelSHAP(n=count, pairing_trick=True, random_state=seed)
    return sampler.approximate(budget, game).get_n_order_values(1)


def shap_gradient(task: Task, budget: int) -> Work:
    import shap

    explainer = shap.GradientExplainer(task.model, task.background)

    def work(seed: int) -> tuple[np.ndarray, float]:
        values = np.asarray(explainer.shap_values(task.x, nsamples=budget, rseed=seed))
        values = np.stack([v[..., c] for v, c in zip(values, task.target, strict=True)])
        return values, budget

    return work


# lime


def lime(game: Callable, count: int, budget: int, seed: int) -> np.ndarray:
    """A picture whose pixels are the features."""
    from lime.lime_image import LimeImageExplainer
    from sklearn.linear_model import Ridge

    explanation = LimeImageExplainer(WIDTH, feature_selection="none").explain_instance(
        np.ones((1, count, 3)),
        lambda pictures: game(np.asarray(pictures)[:, 0, :, 0])[:, None],
        labels=(0,),
        top_labels=None,
        hide_color=0,
        num_features=count,
        num_samples=budget,
        batch_size=AT_ONCE,
        segmentation_fn=lambda _: np.arange(count)[None],
        model_regressor=Ridge(alpha=RIDGE * budget),
        random_seed=seed,
    )
    weights = dict(explanation.local_exp[0])
    return np.array([weights[i] for i in range(count)])


# xplique


def xplique(make: Callable[[Task, int, np.ndarray, Callable], Any]) -> Prepare:
    """An explainer of xplique, made for each row; its scores are kept."""

    def prepare(task: Task, budget: int) -> Work:
        one_hot = np.eye(task.model.output_shape[-1], dtype="float32")[task.target]
        kept: list[tf.Tensor] = []

        def score(model: keras.Model, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            kept.append(tf.reduce_sum(compiled(x) * y, axis=-1))
            return kept[-1]

        compiled = tf.function(lambda x: task.model(x, training=False), reduce_retracing=True)
        explainers = [make(task, budget, x, score) for x in task.x]

        def work(_: int) -> tuple[np.ndarray, float]:  # to set TensorFlow's seed empties its caches
            found = []
            for row, explainer in enumerate(explainers):
                kept.clear()
                at = slice(row, row + 1)
                values = np.asarray(explainer(task.x[at], one_hot[at]))[0]
                if type(explainer).__name__ == "Rise":  # ours has the mean taken off, too
                    values = values - np.concatenate([np.asarray(part) for part in kept]).mean()
                found.append(values.reshape(_shape(task, explainer)))
            return np.array(found), budget

        return work

    return prepare


def _shape(task: Task, explainer: Any) -> tuple[int, ...]:
    channels_apart = type(explainer).__name__ == "SmoothGrad" or task.labels is None
    return task.x.shape[1:] if channels_apart else task.x.shape[1:-1]


def _hidden_by_xplique(task: Task) -> dict[str, Any]:
    labels = np.arange(task.count) if task.labels is None else task.labels
    return {
        "batch_size": AT_ONCE,
        "map_to_interpret_space": lambda _: tf.constant(labels, tf.int32),
        "ref_value": np.zeros(task.x.shape[-1] if task.labels is not None else 1),
    }


def _xplique_kernel(task: Task, budget: int, x: np.ndarray, score: Callable) -> Any:
    from xplique.attributions import KernelShap

    return KernelShap(task.model, operator=score, nb_samples=budget, **_hidden_by_xplique(task))


def _xplique_lime(task: Task, budget: int, x: np.ndarray, score: Callable) -> Any:
    from sklearn.linear_model import Ridge
    from xplique.attributions import Lime

    def near(_: tf.Tensor, present: tf.Tensor, __: tf.Tensor) -> tf.Tensor:
        share = tf.reduce_mean(tf.cast(present, tf.float32), axis=1)
        return tf.exp(-(((1 - tf.sqrt(share)) / WIDTH) ** 2) / 2)

    return Lime(
        task.model,
        operator=score,
        nb_samples=budget,
        similarity_kernel=near,
        interpretable_model=Ridge(alpha=RIDGE * budget),
        **_hidden_by_xplique(task),
    )


def _xplique_rise(task: Task, budget: int, x: np.ndarray, score: Callable) -> Any:
    from xplique.attributions import Rise

    if task.labels is None:
        raise UnsuitedError("its map of a table has one value for all columns")
    return Rise(
        task.model,
        operator=score,
        batch_size=AT_ONCE,
        nb_samples=budget,
        preservation_probability=KEEP,
    )


def _xplique_smooth(task: Task, budget: int, x: np.ndarray, score: Callable) -> Any:
    from xplique.attributions import SmoothGrad

    noise = NOISE * float(np.ptp(x))
    return SmoothGrad(task.model, batch_size=AT_ONCE, nb_samples=budget, noise=noise, reducer=None)


# captum, on the same networks in PyTorch


def captum(explain: Callable[..., Any], channels_apart: bool = False) -> Prepare:
    """A library that explains a PyTorch network, row by row.

    Args:
        explain: Returns the values of a row, of the network, the row `[1, ...]` (its channels
            first), its target, which feature each value is of, the task, and the budget.
        channels_apart: Whether each channel has values of its own.
    """

    def prepare(task: Task, budget: int) -> Work:
        import torch

        net, rows = _in_torch(task.model), torch.tensor(_channels_first(task.x))
        labels = np.arange(task.count) if task.labels is None else task.labels[None]
        feature = torch.tensor(labels[None])

        def work(seed: int) -> tuple[np.ndarray, float]:
            torch.manual_seed(seed)
            found = [
                explain(net, row[None], int(c), feature, task, budget).detach().numpy()[0]
                for row, c in zip(rows, task.target, strict=True)
            ]
            values = np.array(found)
            if task.labels is not None:
                values = np.moveaxis(values, 1, -1) if channels_apart else values[:, 0]
            return values, budget

        return work

    return prepare


def _captum_kernel(net: Any, x: Any, c: int, mask: Any, task: Task, budget: int) -> Any:
    from captum.attr import KernelShap

    options = {"n_samples": budget, "perturbations_per_eval": AT_ONCE}
    return KernelShap(net).attribute(x, 0, c, feature_mask=mask, **options)


def _captum_sampling(net: Any, x: Any, c: int, mask: Any, task: Task, budget: int) -> Any:
    from captum.attr import ShapleyValueSampling

    orders = budget // task.count
    if not orders:
        raise UnsuitedError("needs an evaluation a feature")
    options = {"n_samples": orders, "perturbations_per_eval": AT_ONCE}
    return ShapleyValueSampling(net).attribute(x, 0, c, feature_mask=mask, **options)


def _captum_lime(net: Any, x: Any, c: int, mask: Any, task: Task, budget: int) -> Any:
    import torch
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def near(_: Any, __: Any, present: Any, **___: Any) -> Any:
        share = present.float().mean()
        return torch.exp(-(((1 - torch.sqrt(share)) / WIDTH) ** 2) / 2)

    lime = Lime(net, SkLearnRidge(alpha=RIDGE * budget), near)
    options = {"n_samples": budget, "perturbations_per_eval": AT_ONCE}
    return lime.attribute(x, 0, c, feature_mask=mask, **options)


def _captum_smooth(net: Any, x: Any, c: int, mask: Any, task: Task, budget: int) -> Any:
    from captum.attr import NoiseTunnel, Saliency

    noise = NOISE * float(x.max() - x.min())
    options = {"nt_type": "smoothgrad", "nt_samples": budget, "nt_samples_batch_size": AT_ONCE}
    tunnel = NoiseTunnel(Saliency(net))
    return tunnel.attribute(x, target=c, stdevs=noise, abs=False, **options)


def _captum_gradient(net: Any, x: Any, c: int, mask: Any, task: Task, budget: int) -> Any:
    import torch
    from captum.attr import GradientShap

    background = torch.tensor(_channels_first(task.background))
    return GradientShap(net).attribute(x, background, n_samples=budget, target=c)


def _in_torch(model: keras.Model) -> Callable[[Any], Any]:
    """A network of dense, convolution, pooling and flattening layers in PyTorch."""
    from torch import nn

    if not isinstance(model, keras.Sequential):
        raise UnsuitedError("only stacks of layers are turned into PyTorch's")
    parts: list[Callable[[Any], Any]] = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "MaxPooling2D":
            parts.append(nn.MaxPool2d(layer.pool_size))
        elif kind == "Flatten":
            parts.append(lambda x: x.permute(0, 2, 3, 1).flatten(1))
        else:
            parts.append(_weighted(layer))
            if layer.activation is keras.activations.relu:
                parts.append(nn.ReLU())
    return lambda x: functools.reduce(lambda h, part: part(h), parts, x)


def _weighted(layer: keras.Layer) -> Callable[[Any], Any]:
    import torch
    from torch import nn

    kernel, bias = (torch.tensor(np.asarray(w)) for w in layer.get_weights())
    made: nn.Module
    if kernel.ndim == 2:
        made, weight = nn.Linear(*kernel.shape), kernel.T
    else:
        made = nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[:2])
        weight = kernel.permute(3, 2, 0, 1)
    made.weight.data, made.bias.data = weight.contiguous(), bias
    return made


def _channels_first(x: np.ndarray) -> np.ndarray:
    return x if x.ndim == 2 else np.moveaxis(x, -1, 1).copy()


METHODS: dict[str, dict[str, Prepare]] = {
    "shapley": {
        "keras_explain": ours(lambda t, n: kx.KernelSHAP(samples=n, **t.hidden)),
        "keras_explain, process": ours(
            lambda t, n: kx.KernelSHAP(samples=n, solver="gaussian_process", **t.hidden)
        ),
        "keras_explain, scaled process": ours(
            lambda t, n: kx.KernelSHAP(samples=n, solver="scaled_gaussian_process", **t.hidden)
        ),
        "shap KernelExplainer": each_row(shap_kernel),
        "shap KernelExplainer, selecting": each_row(shap_selecting),
        "shap PermutationExplainer": each_row(shap_permutation),
        "shap SamplingExplainer": each_row(shap_sampling),
        "shapiq KernelSHAP": each_row(shapiq_kernel),
        "xplique KernelShap": xplique(_xplique_kernel),
        "captum KernelShap": captum(_captum_kernel),
        "captum ShapleyValueSampling": captum(_captum_sampling),
    },
    "rise": {
        "keras_explain": ours(lambda t, n: kx.RISE(masks=n)),
        "xplique Rise": xplique(_xplique_rise),
    },
    "lime": {
        "keras_explain": ours(lambda t, n: kx.LIME(samples=n, **t.hidden)),
        "lime": each_row(lime),
        "xplique Lime": xplique(_xplique_lime),
        "captum Lime": captum(_captum_lime),
    },
    "smoothgrad": {
        "keras_explain": ours(lambda t, n: kx.SmoothGrad(samples=n, noise=NOISE)),
        "xplique SmoothGrad": xplique(_xplique_smooth),
        "captum SmoothGrad": captum(_captum_smooth, channels_apart=True),
    },
    "gradient_shap": {
        "keras_explain": ours(lambda t, n: kx.GradientSHAP(background=t.background, samples=n)),
        "shap GradientExplainer": shap_gradient,
        "captum GradientShap": captum(_captum_gradient, channels_apart=True),
    },
}

# An earlier checkout's ridge did not grow with the samples.
BEFORE = {method: makers["keras_explain"] for method, makers in METHODS.items()} | {
    "lime": ours(lambda t, n: kx.LIME(samples=n, alpha=RIDGE * n, **t.hidden))
}
