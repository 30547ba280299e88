"""Placeholder until the READMEs are merged."""


def fill():
    pass
