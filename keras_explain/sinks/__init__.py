"""Where a callback's records go: TensorBoard, memory."""

from keras_explain.sinks.base import Record as Record
from keras_explain.sinks.base import Sink as Sink
from keras_explain.sinks.memory import Memory as Memory
from keras_explain.sinks.tensorboard import TensorBoard as TensorBoard
