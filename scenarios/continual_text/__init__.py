"""A stream of Shakespeare's roles: the next character, one role after the other."""
