"""Bad input: one clear line that names the file, key or line at fault and what would be right; exit status 2."""


class InputError(Exception):
    """What a user gave cannot be used; takes exactly one string, the line to print."""
