"""Calibration on documents: texts, or conversations that the chat template of the tokenizer turns into text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from harness_ext.errors import BadOptionError, CalibrationError, PluginError, one_line, shown
from harness_ext.method.calibration import Calibration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T", bound="Texts")


class Documents(Calibration):
    """A source of texts, or with ``chat_template=true`` of conversations: override ``rows``."""

    chat_template: bool = False
    """Whether each document is a list of messages, ``{"role": ..., "content": ...}``, for the chat template of the tokenizer."""
    field: str | None = None
    """Where the document stands in a row that is an object: by default ``text``, and ``messages`` with ``chat_template``."""

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Where each row comes from, for errors, and the row: a document, or an object with the document in a field."""
        raise PluginError(f"{type(self).__qualname__} does not override rows")

    @classmethod
    def check_class(cls) -> None:
        super().check_class()
        if cls.rows is Documents.rows and cls.texts is Documents.texts and cls.input_ids is Calibration.input_ids:
            raise PluginError(f"{cls.__qualname__} does not override rows")

    def texts(self) -> Iterator[str]:
        """The texts.

        Raises:
            CalibrationError: a row without one; names it.
        """
        for where, row in self.rows():
            yield self._text(where, row)

    def tokens(self, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
        if not self.chat_template:
            yield from super().tokens(tokenizer)
            return
        for where, row in self.rows():
            messages = self._messages(where, row)
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False)
            except Exception as error:  # a template is code, and refuses what it does not like
                raise CalibrationError(f"{where}: the chat template does not take these messages: {one_line(error)}") from error
            yield tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().check_tokenizer(tokenizer)
        if self.chat_template and not getattr(tokenizer, "chat_template", None):
            raise CalibrationError("calibration.chat_template=True: the tokenizer has no chat template")

    def check_rows(self) -> bool:
        """Looks at the first row. Returns whether there is one.

        Raises:
            CalibrationError: it holds no document.
        """
        for where, row in self.rows():
            _ = self._messages(where, row) if self.chat_template else self._text(where, row)
            return True
        return False

    def _text(self, where: str, row: Any) -> str:
        name = self.field or "text"
        text = row.get(name) if isinstance(row, Mapping) else row
        if not isinstance(text, str):
            hint = "; calibration.chat_template=true reads messages" if isinstance(row, Mapping) and "messages" in row else ""
            raise CalibrationError(f"{where}: want an object with the text field {shown(name)}, found: {_found(row)}{hint}")
        return text

    def _messages(self, where: str, row: Any) -> Sequence[Mapping[str, Any]]:
        name = self.field or "messages"
        messages = row.get(name) if isinstance(row, Mapping) else row
        if not isinstance(messages, list) or not messages:
            raise CalibrationError(
                f"{where}: calibration.chat_template=True wants an object with a list {shown(name)}, found: {_found(row)}"
            )
        for message in messages:
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
                raise CalibrationError(f"{where}: want messages with 'role' and 'content', found: {shown(message)}")
        return messages


class Texts(Documents):
    """Documents that were passed from Python."""

    name: ClassVar[str] = "texts"
    documents: tuple[Any, ...] = ()

    @classmethod
    def of(cls: type[T], documents: Sequence[Any], options: Mapping[str, Any]) -> T:
        """Checks the documents and the options.

        Raises:
            BadOptionError: a document that is no text, or no conversation where ``chat_template`` is set; no document at all; an option
                that is wrong.
        """
        if "documents" in options:
            raise BadOptionError("calibration.documents: pass the documents themselves, calibration=[TEXT, ...]")
        source = cls.from_options({**options, "documents": tuple(documents)})
        if not documents:
            raise BadOptionError("calibration=[]: want at least one text")
        for where, row in source.rows():
            if not isinstance(row, list if source.chat_template else str):
                want = "lists of messages, as calibration.chat_template=True says" if source.chat_template else "texts"
                raise BadOptionError(f"{where}: want {want}, or int64 token ids [samples, length] in a tensor; found {shown(row)}")
            if source.chat_template:
                source._messages(where, row)
        return source

    def rows(self) -> Iterator[tuple[str, Any]]:
        for index, document in enumerate(self.documents):
            yield f"calibration[{index}]", document

    def options(self) -> dict[str, Any]:
        """The options, with a count and a digest in the place of the documents."""
        content = json.dumps(self.documents, default=str).encode()
        return super().options() | {"documents": len(self.documents), "documents_digest": hashlib.sha256(content).hexdigest()[:16]}


def _found(row: Any) -> str:
    return shown(", ".join(map(str, row))).strip("'\"") if isinstance(row, Mapping) else type(row).__name__
