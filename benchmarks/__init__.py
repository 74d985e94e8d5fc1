"""Times of explainers and of the callback, beside plain compiled loops and other libraries."""
