"""How the artifact is cited: authors, version, licence and date of CITATION.cff."""

from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from prophet_moe.validation import read_yaml, validate

CITATION_FILE = Path("CITATION.cff")


class _Part(BaseModel):
    """A part of a file in the Citation File Format, of which only some keys are read."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, use_attribute_docstrings=True)


class Author(_Part):
    """An author: an organisation has a name, a person a family name and perhaps given names."""

    name: str = ""
    family_names: str = Field("", alias="family-names")
    given_names: str = Field("", alias="given-names")

    @property
    def is_person(self) -> bool:
        """Whether this is a person, not an organisation."""
        return bool(self.family_names)

    @property
    def full_name(self) -> str:
        """The name as it is printed."""
        return f"{self.given_names} {self.family_names}".strip() if self.is_person else self.name


class Citation(_Part):
    """What CITATION.cff says of the artifact."""

    title: str
    version: str
    license: str
    """Identifier of the SPDX list."""
    abstract: str
    authors: list[Author] = Field(min_length=1)
    released: date = Field(alias="date-released")
    """The one date that crate and archive carry."""


def read_citation(path: Path = CITATION_FILE) -> Citation:
    """Read a citation file; a missing or wrong key is a UserError."""
    return validate(Citation, read_yaml(path), str(path), "See https://citation-file-format.github.io.")
