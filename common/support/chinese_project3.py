"""The sentences of project 3's pages in Chinese, by their English templates."""

SENTENCES = {}
