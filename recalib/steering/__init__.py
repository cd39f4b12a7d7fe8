"""Steering: routing inside the forward pass, and generation with it."""
