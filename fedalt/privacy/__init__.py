"""Privacy: what a federation costs its people, before, during and after a run."""
