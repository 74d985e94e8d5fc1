"""An explanation, and its file."""
