"""The gate: directions, readout, fitting, and choosing the layer. Arrays only, no model."""
