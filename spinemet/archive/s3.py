"""An archive on S3.

obstore lists and reads: it is 3 to 8 times as fast as boto3. But it refuses a whole page of a listing for one key with
`//`, `/./`, `..` or a control character, and takes the slash off a key that begins with one. boto3 handles every key,
so it takes over from there.
"""

import io
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import BaseError, InvalidPathError, NotFoundError, PermissionDeniedError

from spinemet import files
from spinemet.archive.store import Store, unreachable
from spinemet.errors import BadInput, plain_cause
from spinemet.types import ObjectRef

_ODD_KEY = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")
_LOST_CODES = {"NoSuchKey", "NotFound", "AccessDenied", "Forbidden", "InvalidObjectState", "404", "403"}


class S3Store(Store):
    """The objects below an `s3://bucket/prefix`."""

    is_near = False

    def __init__(self, archive: str) -> None:
        super().__init__(archive)
        self._bucket, _, prefix = archive.removeprefix("s3://").partition("/")
        self._root = f"{prefix}/" if prefix else ""
        self._store = files.open_store(archive)

    def _listed(self, below: str) -> Iterator[ObjectRef]:
        last = ""
        leading_slashes = not (self._root or below) and next(self._pages("/", MaxKeys=1), None) is not None
        if not leading_slashes:
            try:
                for page in self._store.list(prefix=below or None, chunk_size=1000):
                    for meta in page:
                        last = meta["path"]
                        yield _object_ref(last, meta)
                return
            except InvalidPathError:
                pass
            except (BaseError, OSError) as error:
                raise self._cannot_list(error) from error
        yield from self._pages(below, StartAfter=f"{self._root}{last}" if last else self._root + below)

    def _pages(self, below: str, **options: Any) -> Iterator[ObjectRef]:
        """The objects whose key starts with `below`, listed by boto3."""
        asked = {"Bucket": self._bucket, "Prefix": self._root + below, **options}
        while True:
            try:
                page = self._boto3.list_objects_v2(**asked)
            except self._errors as error:
                raise self._cannot_list(error) from error
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._root)
                if item["Size"] or not key.endswith("/"):
                    yield ObjectRef(key, item["Size"], item["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _cannot_list(self, error: Exception) -> BadInput:
        return BadInput(f"{self.archive} cannot be listed ({plain_cause(error)}): check the address and its access.")

    def folder(self, key: str) -> list[ObjectRef]:
        below = f"{key}/" if key else ""
        try:
            found = self._store.list_with_delimiter(key or None)["objects"]
            return [_object_ref(meta["path"], meta) for meta in found]
        except (InvalidPathError, ValueError):
            return list(self._pages(below, Delimiter="/"))
        except (BaseError, OSError) as error:
            raise self._cannot_list(error) from error

    def stat(self, key: str) -> ObjectRef:
        try:
            return _object_ref(key, self._store.head(key))
        except (BaseError, OSError, ValueError) as error:
            raise BadInput(f"no study can be read at {self.archive}/{key} ({plain_cause(error)}).") from error

    def read(self, key: str, size: int | None = None) -> bytes:
        if _ODD_KEY.search(key):
            return self._read_odd(key, size)
        try:
            if size is None:
                return bytes(obstore.get(self._store, key).bytes())
            return bytes(obstore.get_range(self._store, key, start=0, length=size))
        except (BaseError, OSError) as error:
            lost = isinstance(error, NotFoundError | FileNotFoundError | PermissionDeniedError | PermissionError)
            raise unreachable(error, is_lost=lost) from error

    def _read_odd(self, key: str, size: int | None) -> bytes:
        part = {} if size is None else {"Range": f"bytes=0-{size - 1}"}
        try:
            content: bytes = self._boto3.get_object(Bucket=self._bucket, Key=self._root + key, **part)["Body"].read()
            return content
        except self._errors as error:
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            raise unreachable(error, is_lost=code in _LOST_CODES) from error

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.read(key))

    @cached_property
    def _boto3(self) -> Any:
        connect, read = files.CONNECT_TIMEOUT.total_seconds(), files.READ_TIMEOUT.total_seconds()
        return files.boto3_client(connect, read, {"max_attempts": files.RETRIES, "mode": "standard"})

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        from botocore.exceptions import BotoCoreError, ClientError

        return BotoCoreError, ClientError, OSError


def _object_ref(key: str, meta: Any) -> ObjectRef:
    return ObjectRef(key, meta["size"], meta["last_modified"].timestamp())
