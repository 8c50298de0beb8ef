"""Models on disk: reading and writing weights one decoder block at a time, checkpoints, masks and model cards."""
