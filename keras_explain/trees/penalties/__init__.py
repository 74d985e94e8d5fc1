"""What tree regularization adds to the loss."""

from keras_explain.trees.penalties.base import Penalty as Penalty
from keras_explain.trees.penalties.distillation import TreeDistillation as TreeDistillation
from keras_explain.trees.penalties.output_surrogate import OutputSurrogate as OutputSurrogate
from keras_explain.trees.penalties.path_length import PathLength as PathLength
from keras_explain.trees.penalties.weight_surrogate import WeightSurrogate as WeightSurrogate
