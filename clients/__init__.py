"""Clients: what runs at a site."""
