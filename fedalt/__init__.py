"""fedalt: federations in which work alternates."""

__version__ = "0.1.0"
