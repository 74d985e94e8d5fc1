"""A model, opened: its layers, its forward pass, what is read of it."""
