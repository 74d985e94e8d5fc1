"""Training towards explanations: a model whose loss has further terms."""
