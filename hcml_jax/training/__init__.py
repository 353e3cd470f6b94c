"""Training: stages one after another, checkpoints, resuming. Knows stages, not papers."""
