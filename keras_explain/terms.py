"""What can be added to the loss of a model that trains: the terms of `kx.Regularized`."""

from keras_explain.training.term import Batch as Batch
from keras_explain.training.term import Term as Term
from keras_explain.trees.term import Tree as Tree
