"""A stream of a user's own tasks: a folder with one ``.npz`` file each."""
