"""What users pass as data: inputs, what stands for nothing, where channels are."""
