"""What the benchmarks share: lines of results, draws of labels, and what is made from the lines."""
