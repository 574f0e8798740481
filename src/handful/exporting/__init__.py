"""Leave a run as a folder that needs neither handful nor torch, and check that it answers alike."""
