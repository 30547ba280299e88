"""The exceptions whose one line of text the user is meant to read."""


class UserError(Exception):
    """Something that the user can put right. Its text is one line: what is wrong, and what to do about it."""


class UsageError(UserError):
    """A command line that asks for what there is not; ends with argparse's own exit status."""


def first_line(error):
    """Return an exception's first line, or its class name where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
