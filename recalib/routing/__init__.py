"""Routing: deciding and steering inside the forward pass, from Python and in generation."""
