"""What all sections of the configuration share."""

from pydantic import BaseModel, ConfigDict

#: A name that becomes a folder: neither ``.`` nor ``..``, nor taken for an option.
FOLDER_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class Section(BaseModel):
    """A section of the configuration: immutable; unknown keys are errors, and so are numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
