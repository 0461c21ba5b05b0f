"""Engines: Flower grids that carry instructions to clients and replies back."""
