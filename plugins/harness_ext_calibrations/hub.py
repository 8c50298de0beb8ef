"""A data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from harness_ext import BadOptionError, CalibrationError, Documents, one_line, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Hub(Documents):
    """The first documents of a data set, streamed: ``calibration=hub,calibration.dataset=allenai/c4,calibration.config=en``.

    Needs a network, or a data set that is in the local cache.
    """

    name: ClassVar[str] = "hub"
    dataset: str = ""
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    def check(self) -> None:
        if not self.dataset:
            raise BadOptionError("calibration=hub wants calibration.dataset=NAME, such as allenai/c4")

    def cache_key(self, model: PreTrainedModel, model_digest: str) -> Mapping[str, Any] | None:
        """By the commit of the data set. Not kept where the hub does not tell it."""
        from huggingface_hub import HfApi

        try:
            commit = HfApi().dataset_info(self.dataset, revision=self.revision).sha
        except Exception:  # the hub's client raises errors of several libraries
            return None
        return {"length": self.length_for(model), "commit": commit} if commit else None

    def rows(self) -> Iterator[tuple[str, Any]]:
        import datasets

        name = self.field or ("messages" if self.chat_template else "text")
        try:
            rows = datasets.load_dataset(self.dataset, self.config, split=self.split, revision=self.revision, streaming=True)
            for number, row in enumerate(rows, 1):
                if name not in row:
                    raise CalibrationError(f"calibration.field={shown(name)}: {self.dataset} has the fields {', '.join(row)}")
                yield f"{self.dataset}, row {number}", row
        except CalibrationError:
            raise
        except Exception as error:  # datasets and its network libraries raise errors of many kinds
            raise CalibrationError(f"cannot read {shown(self.dataset)} from the hub: {type(error).__name__}: {one_line(error)}") from error
