"""The command line: ``fedalt COMMAND``."""
