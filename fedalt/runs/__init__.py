"""Runs: what one leaves on disk, and how it is taken up again."""
