"""Strategies: Flower strategies of our own, and the state of any of them."""
