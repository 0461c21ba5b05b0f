"""Server: the aggregation loop, admission and strategies."""
