"""Scenarios: each a task, a YAML file and a claim."""
