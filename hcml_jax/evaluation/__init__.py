"""What a run has learnt: nearest neighbours, linear probes, flow error, accuracy, by class family."""
