"""Audits: lower bounds on ε from a twin run with canaries, and membership inference."""
