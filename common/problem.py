"""The one exception a user is meant to read."""


class Problem(Exception):
    """Something the user can put right. Its text is one line: what is wrong, and what to do about it."""


def first_line(error):
    """An exception's first line, or its kind where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
