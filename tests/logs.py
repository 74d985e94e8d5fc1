"""Log directories for the Explain tab: written by the sink, and made by hand to be broken."""

import json
import struct
import types
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_explain.sinks import Record, TensorBoard, events
from keras_explain.sinks.trees import TreeLog
from keras_explain.trees import SurrogateTree

SAMPLES, STEPS = 3, 12  # more steps than TensorBoard keeps by default
METHODS = ("grad_cam", "saliency")
NAMES = ("cat", "</script><b>dog</b>")
SURROGATE = SurrogateTree(
    feature=np.array([1, -1, -1], np.int32),
    threshold=np.array([0.5, 0, 0], np.float32),
    left=np.array([1, -1, -1], np.int32),
    right=np.array([2, -1, -1], np.int32),
    label=np.array([0, 0, 1], np.int32),
    counts=np.array([[3, 2], [3, 0], [0, 2]]),
    feature_names=("a", "b"),
    class_names=NAMES,
)
TREE = SURROGATE.to_dict()


def record(step, method="grad_cam", samples=SAMPLES, seed=0, **changes):
    rng = np.random.default_rng([step, len(method), seed])
    maps = rng.normal(size=(samples, 6, 5)).astype(np.float32)
    fields = {
        "explanation": types.SimpleNamespace(scores=maps[:, 0, 0], values=maps, extras={}),
        "scalars": {"score": step / 2},
        "limit": 1.5,
        "signed": True,
        "pictures": np.random.default_rng(0).integers(0, 255, (samples, 6, 5, 3), np.uint8),
        "maps": maps,
        "labels": np.arange(samples) % 2,
        "predicted": np.full(samples, step % 2),
        "explained": np.zeros((samples, 1), np.int64),
        "class_names": NAMES,
        "probabilities": np.full(samples, 0.75),
    }
    return Record(step=step, name=method, **(fields | changes))


def write(log_dir, steps=STEPS, methods=METHODS, **changes):
    """Logs of every method at every step, and a tree at every fourth."""
    sink = TensorBoard(log_dir)
    for step in range(steps):
        for method in methods:
            sink.write(record(step, method, **changes))
        sink.flush()
        if step % 4 == 0:
            TreeLog(log_dir).write(step, SURROGATE)
    sink.close()


def write_restarted(log_dir, **changes):
    """Logs of 5 steps, and of a training that began anew: `changes` are those of its records."""
    write(log_dir, steps=5)
    age(log_dir / "explain")
    write(log_dir, **({"steps": 3, "seed": 1} | changes))


def write_resumed(log_dir):
    """Logs of 4 steps, and of a training that went on at step 2, which it wrote twice."""
    write(log_dir, steps=4)
    age(log_dir / "explain")
    sink = TensorBoard(log_dir)
    for step in (2, 2, 3):
        for method in METHODS:
            sink.write(record(step, method, seed=1))
        sink.flush()
    sink.close()


def fewer(samples):
    """Changes of records, to have other samples and fewer."""
    zeros = np.zeros(samples, np.int64)
    return {
        "samples": samples,
        "pictures": np.zeros((samples, 6, 5, 3), np.uint8),
        "labels": zeros,
        "predicted": zeros,
        "explained": zeros[:, None],
        "probabilities": np.ones(samples),
    }


def age(directory):
    """Lets event files be older than those to come, which readers sort by the time in the name."""
    for number, path in enumerate(sorted(Path(directory).glob("*tfevents*"))):
        path.rename(path.with_name(f"events.out.tfevents.100000000{number}.then"))


def write_blobs(directory, *logged):
    """Events `(tag, step, blobs)`, whatever is in them."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(
            plugin_name=events.PLUGIN, content=events.content()
        ),
        data_class=3,
    )
    with tf.summary.create_file_writer(str(directory)).as_default():
        for tag, step, blobs in logged:
            tensor = tf.constant(blobs, tf.string, [len(blobs)])
            tf.summary.write(tag, tensor, step, metadata)


def write_scalars(directory, tag, values):
    with tf.summary.create_file_writer(str(directory)).as_default():
        for step, value in enumerate(values):
            tf.summary.scalar(tag, value, step)


def opened(envelope):
    """The header and the blobs of an envelope."""
    (length,) = struct.unpack("<I", envelope[:4])
    header, rest = json.loads(envelope[4 : 4 + length]), envelope[4 + length :]
    ends = np.cumsum(header["blobs"])
    assert len(rest) == (ends[-1] if len(ends) else 0)
    return header, [rest[end - n : end] for n, end in zip(header["blobs"], ends, strict=True)]


def values(described, blobs):
    """The maps `[K, ...]` that a record of an envelope describes."""
    first, bits, shape = described["first"], described["bits"], described["shape"]
    maps = [decoded(blob, bits) for blob in blobs[first : first + described["count"]]]
    ends = np.array(described["range"])[:, :, None, None]
    lo, hi = ends[:, 0], ends[:, 1]
    return (lo + (hi - lo) * np.stack(maps) / (2**bits - 1)).reshape(len(maps), *shape)


def decoded(png, bits):
    """The codes of a map; NaN where it is marked as not a number."""
    pixels = tf.io.decode_png(png).numpy().astype(np.float64)
    if bits == 8:
        return pixels[..., 0]
    codes = pixels[..., 0] * 256 + pixels[..., 1]
    return np.where(pixels[..., 2] == 255, np.nan, codes)
