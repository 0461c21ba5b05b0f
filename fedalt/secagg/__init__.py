"""Secure aggregation: a sum of many sites' updates, of which nobody sees a single one."""
