"""Data sources, their order and the pipeline of batches."""
