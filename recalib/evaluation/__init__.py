"""Evaluation: the gate on labelled activations, and refusal in generated completions."""
