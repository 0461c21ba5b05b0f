"""A scenario's claim: methods over seeds, statements about their measures, and a verdict."""
