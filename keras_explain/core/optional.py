"""Packages that are of use, but need not be installed."""

from typing import Any


def shap() -> Any:
    """The shap package.

    Raises:
        ImportError: It is not installed, or can't be imported.
    """
    try:
        import shap
    except ImportError as error:
        raise ImportError(
            "Expected the shap package to be installed. Received: an error when importing it "
            f'({error}). Install it with `pip install "keras-explanations[shap]"`.'
        ) from error
    return shap
