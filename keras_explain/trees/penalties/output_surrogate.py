from keras_explain.trees.penalties.surrogates import Surrogate


class OutputSurrogate(Surrogate):
    probes: int = 64

    @property
    def probe_rows(self):
        return self.probes

    def size(self, sizes):
        return sizes.outputs

    def seen(self, weights, outputs):
        return outputs

    def seen_in(self, step):
        return step.probe()
