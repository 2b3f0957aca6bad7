"""What all sections of the configuration share."""

from pydantic import BaseModel, ConfigDict

#: A name that becomes a folder: it cannot be ``.`` or ``..``, or look like a command-line option.
FOLDER_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class Section(BaseModel):
    """A section of the configuration: immutable; unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
