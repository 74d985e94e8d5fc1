"""`keras-explain explain`."""

from __future__ import annotations

import argparse

from keras_explain.callbacks.naming import named_explainers
from keras_explain.cli import objects
from keras_explain.cli.calls import calls
from keras_explain.cli.classes import both_classes, class_names, outputs_of, target_of
from keras_explain.cli.errors import tell
from keras_explain.cli.figures import Figures, looks_of
from keras_explain.cli.files import check_folder, check_free, load_modules
from keras_explain.cli.models import source_of
from keras_explain.cli.results import Result
from keras_explain.cli.samples import Preparation, Samples, samples_of
from keras_explain.core.explainer import Explainer


def run(options: argparse.Namespace) -> None:
    """Explains the inputs, and writes values, scores and figures."""
    load_modules(options.imports)
    for call in options.method or []:
        objects.check(call)
    source = source_of(options)
    prepare = Preparation.of(source, options)
    samples = samples_of(options.inputs, prepare)
    looks = looks_of(options, samples.pictures is not None)
    explainers = _explainers(options, samples, prepare)
    outputs = outputs_of(source.model, samples.x, options)
    names = class_names(options.class_names, source, outputs)
    if names is not None:
        outputs = both_classes(source.model, samples.x, outputs, options)
    target = target_of(options, outputs, names)
    figures = Figures(samples, options, names, list(explainers), looks)
    check_folder(options.output)
    check_free([*Result.paths(options.output, explainers), *figures.paths()], options.force)
    found = {
        name: explainer(
            source.model,
            samples.x,
            target,
            batch_size=options.batch_size,
            seed=options.seed,
            data_format=options.data_format,
        )
        for name, explainer in explainers.items()
    }
    result = Result(found, samples, outputs, names)
    for line in result.lines():
        tell(line)
    for paths in (result.write(options), figures.write(found)):
        for path in paths:
            tell(f"Wrote {path}")


def _explainers(
    options: argparse.Namespace, samples: Samples, prepare: Preparation
) -> dict[str, Explainer]:
    """The explainers by name; a second one of a kind gets `_2`."""
    default = "integrated_gradients" if samples.pictures is None else "grad_cam"
    chosen = options.method or calls(default)
    return named_explainers([objects.make(call, prepare.array) for call in chosen])
