"""What a user gave that cannot be used."""


class Refusal(ValueError):  # noqa: N818 - the name says what happens to the input
    """One line that names the file, field or value, and what is expected; exit code 2."""
