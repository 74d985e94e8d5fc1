"""What every explainer stands on."""
