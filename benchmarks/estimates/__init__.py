"""Whether what a fit says of itself holds: intervals, forecasts, doubtful labels."""
