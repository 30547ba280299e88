"""The one exception a user is meant to read."""


class Problem(Exception):
    """Something the user can put right. Its text is one line: what is wrong, and what to do about it."""
