"""Decision trees that mimic models, and the training of models that trees can mimic."""

from keras_explain.trees.penalties import OutputSurrogate as OutputSurrogate
from keras_explain.trees.penalties import PathLength as PathLength
from keras_explain.trees.penalties import Penalty as Penalty
from keras_explain.trees.penalties import TreeDistillation as TreeDistillation
from keras_explain.trees.penalties import WeightSurrogate as WeightSurrogate
from keras_explain.trees.regional_tree import RegionalTree as RegionalTree
from keras_explain.trees.regularization import TreeRegularization as TreeRegularization
from keras_explain.trees.surrogate_tree import SurrogateTree as SurrogateTree
