"""Privacy: what a federation costs its people."""
