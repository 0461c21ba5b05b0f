"""Streams of image tasks in environments where a task's recurrence falls as a power law."""
