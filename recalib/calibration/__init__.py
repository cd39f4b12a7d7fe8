"""Calibration: threshold rules, drawing shots, and applying them to a gate. Arrays only, no model."""
