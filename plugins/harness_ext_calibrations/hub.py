"""A data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from harness_ext import BadOptionError, Calibration, CalibrationError


class Hub(Calibration):
    """The first documents of a data set, streamed: ``calibration=hub,calibration.dataset=allenai/c4,calibration.config=en``.

    Needs a network, or a data set that is in the local cache.
    """

    name: ClassVar[str] = "hub"
    dataset: str = ""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    field: str = "text"

    def check(self) -> None:
        if not self.dataset:
            raise BadOptionError("calibration=hub wants calibration.dataset=NAME, such as allenai/c4")

    def texts(self) -> Iterator[str]:
        import datasets

        try:
            rows = datasets.load_dataset(self.dataset, self.config, split=self.split, revision=self.revision, streaming=True)
            for row in rows:
                if not isinstance(row.get(self.field), str):
                    raise CalibrationError(f"calibration.field={self.field!r}: {self.dataset} has the fields {', '.join(row)}")
                yield row[self.field]
        except CalibrationError:
            raise
        except Exception as error:  # datasets and its network libraries raise errors of many kinds
            raise CalibrationError(
                f"cannot read {self.dataset!r} from the hub: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
