from keras_explain.trees.penalties.surrogates import Surrogate
import numpy as np
from keras_explain import backend


class WeightSurrogate(Surrogate):
    mixtures: int = 30
    max_weights: int = 100_000

    def size(self, sizes):
        return sizes.weights

    def seen(self, weights, outputs):
        return weights

    def seen_in(self, step):
        return step.weights()

    def augmented(self, network, recent, stream):
        share = -np.log(
            1 - backend.random_uniform(self.seed, (self.mixtures, len(recent)), 10**6 + stream)
        )
        share /= share.sum(1, keepdims=True)
        return np.concatenate(
            [super().augmented(network, recent, stream), (share @ recent).astype("float32")]
        )
