"""The published methods, one a file; `plasticity` exports them all."""
