"""Rows and passes through compiled functions, and what becomes of them."""
