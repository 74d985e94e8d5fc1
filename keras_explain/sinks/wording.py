"""What is said about a sample in words: a line below its picture, and a table per step."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from keras_explain.plots import notes
from keras_explain.sinks.base import Record

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~])")


def description(record: Record, sample: int) -> str:
    """One line for a picture, in Markdown.

    TensorBoard shows the description of a tag's first event for all of them, so the line says
    which step it speaks of.

    Args:
        record: A record.
        sample: The row of the sample.

    Returns:
        Such as `step 0: true cat, predicted dog, explained cat (score 1.23)`.
    """
    facts = [f"{what} {name}" for what, name in _classes(record, sample).items()]
    verb = "" if record.explained is None else "explained "
    facts.append(verb + _explained(record, sample))
    line = f"step {record.step}: {', '.join(facts)}"
    return f"{line}. For other steps see the text `explain/predictions`."


def table(records: Sequence[Record]) -> str:
    """A Markdown table of one step: a row per sample, a column per explainer.

    Args:
        records: The records of the step, at least one, all of the same samples.

    Returns:
        The table: sample, true and predicted class where known, and for each explainer the
        explained class with its score.
    """
    rows = [_row(records, sample) for sample in range(len(records[0].explanation.scores))]
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row[head] for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(records: Sequence[Record], sample: int) -> dict[str, str]:
    row = {"sample": str(sample), **_classes(records[0], sample)}
    return row | {_plain(record.name): _explained(record, sample) for record in records}


def _classes(record: Record, sample: int) -> dict[str, str]:
    known = {"true": record.labels, "predicted": record.predicted}
    return {
        what: _plain(record.class_name(classes[sample]))
        for what, classes in known.items()
        if classes is not None
    }


def _explained(record: Record, sample: int) -> str:
    """Such as `cat (score 1.23)`; several where several classes are explained."""
    said = notes.words(record.explanation, record.reliable)
    pairs = zip(*(np.atleast_1d(a[sample]) for a in (record.explanation.scores, said)), strict=True)
    scores = [f"score {score:.4g}{words and ', '}{words}" for score, words in pairs]
    if record.explained is None:
        return _plain(", ".join(scores))
    names = [_plain(record.class_name(index)) for index in record.explained[sample]]
    return ", ".join(f"{name} ({_plain(s)})" for name, s in zip(names, scores, strict=True))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
