"""What a published figure is, held against the model: rows of published and simulated numbers, and their band."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One number: what it is with its unit, as published, as simulated, and how far they may lie apart, as a share.

    ``fitted``: the model was given it, so that it proves nothing.
    """

    what: str
    published: float
    simulated: float
    band: float = 0.1
    fitted: bool = False

    @property
    def error(self) -> float:
        """The simulated number over the published one, less 1."""
        return self.simulated / self.published - 1

    @property
    def outcome(self) -> str:
        """``fitted``, ``within`` or ``outside`` of the band."""
        if self.fitted:
            return "fitted"
        return "within" if abs(self.error) <= self.band else "outside"


@dataclass(frozen=True, slots=True)
class Figure:
    """A published figure: where it stands, what of it was fitted, and what the outcome says."""

    name: str
    source: str
    fitted: str
    rows: tuple[Row, ...]
    says: str
