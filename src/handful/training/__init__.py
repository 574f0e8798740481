"""Train one network: batches, loop, averaging, time limits, checkpoints."""
