"""Select the method: candidates within a time budget, evidence, past results."""
