"""What tree regularization adds to the loss."""

from keras_explain.trees.penalties.base import Penalty as Penalty
from keras_explain.trees.penalties.distillation import TreeDistillation as TreeDistillation
from keras_explain.trees.penalties.path_length import PathLength as PathLength
