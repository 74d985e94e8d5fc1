"""What can be hidden of an input, and the model's scores of what is left."""
