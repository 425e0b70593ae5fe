"""Bad input: one clear line that names the file, key or line at fault and what would be right; exit status 2."""


class InputError(Exception):
    """What a user gave cannot be used; takes exactly one string, the line to print."""


def visible(text: object) -> str:
    """A text on one line whatever it holds: file names may hold line breaks and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
