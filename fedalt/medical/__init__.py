"""Volumes of medical images: reading, preparing, patches, and judging segmentations."""
