"""The bench: does the forecast hold? Fine-tunes whose side effects were measured, and every predictor on the same cells."""
