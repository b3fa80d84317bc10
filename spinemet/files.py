"""Places that a path or an `s3://` URI can name, opened for the libraries that read and write them.

S3 settings come from the environment, as every AWS tool reads them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL (for MinIO, Ceph, moto; plain http is allowed only there).
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pyarrow.fs as pafs
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store
from pydantic import BaseModel, ValidationError

from spinemet.errors import BadInput

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

RETRIES = 6
"""With the back-off 0.1, 0.2 … 6.4 s and jitter: an outage of some ten seconds passes unnoticed, and one that lasts
costs a study that long, not the three minutes that are obstore's default."""
RETRY_TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=30)
"""Without a single byte. There is no limit for a whole request but one: a 4 GB zip takes its minutes, where obstore's
default of 30 s would cut it off."""
REQUEST_TIMEOUT = timedelta(hours=1)


def is_s3(uri: str) -> bool:
    """True for an `s3://` URI, False for a local path."""
    return uri.startswith("s3://")


def normalize(uri: str | Path) -> str:
    """`uri` without a trailing slash; a local path becomes absolute, so that it means the same in every process."""
    text = str(uri)
    if is_s3(text):
        return text.rstrip("/")
    if "://" in text and not text.startswith("file://"):
        raise BadInput(f"expected a local path or an s3:// URI, found {text}.")
    return str(Path(text.removeprefix("file://")).expanduser().absolute())


def join(uri: str, *names: str) -> str:
    """`uri` with `names` appended, one slash between each."""
    return "/".join([normalize(uri), *(name.strip("/") for name in names)])


def split(uri: str) -> tuple[str, str]:
    """(parent, name) of `uri`, both without slashes at the border."""
    parent, _, name = normalize(uri).rpartition("/")
    return parent or "/", name


def open_store(uri: str, *, create: bool = False) -> ObjectStore:
    """An obstore store rooted at `uri`; with `create`, a missing local folder is made.

    Raises BadInput where a local folder is missing or cannot be made, or the S3 settings are not usable.
    """
    uri = normalize(uri)
    if not is_s3(uri):
        try:
            return LocalStore(uri, mkdir=create)
        except (BaseError, OSError) as error:
            raise BadInput(f"expected a folder at {uri}, found none that can be opened.") from error
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    endpoint = s3_endpoint()
    plain_http = endpoint is not None and endpoint.startswith("http://")
    settings: S3Config = {"region": s3_region()}
    if endpoint:
        settings["endpoint"] = endpoint
    client: ClientConfig = {
        "allow_http": plain_http,
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
        "timeout": REQUEST_TIMEOUT,
    }
    retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT}
    try:
        return S3Store(bucket, prefix=prefix or None, config=settings, client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise BadInput(f"expected usable S3 settings for {uri}, found: {type(error).__name__}.") from error


def read_bytes(uri: str) -> bytes:
    """The content of the file or object at `uri`. Raises BadInput where there is none or it cannot be read."""
    parent, name = split(uri)
    try:
        return bytes(obstore.get(open_store(parent), name).bytes())
    except (NotFoundError, FileNotFoundError) as error:
        raise BadInput(f"expected a file at {uri}, found none.") from error
    except (BaseError, OSError) as error:
        raise BadInput(f"expected a readable file at {uri}, found {type(error).__name__}.") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write `content` to `uri` in one step: a reader sees the old content or the new, never a part."""
    parent, name = split(uri)
    try:
        obstore.put(open_store(parent, create=True), name, content)
    except (BaseError, OSError) as error:
        raise BadInput(f"expected a place that can be written at {uri}, found {type(error).__name__}.") from error


def exists(uri: str) -> bool:
    """Whether a file or object lies at exactly `uri`."""
    parent, name = split(uri)
    if not is_s3(uri):
        return Path(normalize(uri)).exists()
    try:
        obstore.head(open_store(parent), name)
    except (NotFoundError, FileNotFoundError):
        return False
    except BaseError as error:
        raise BadInput(f"expected a reachable object store for {uri}, found {type(error).__name__}.") from error
    return True


def claim(place: str, request: BaseModel) -> None:
    """Make the folder of the JSON file `place` belong to `request`, which is stored there.

    The same request may claim the folder again, to continue. Raises BadInput if it belongs to another request; the
    message names the fields that differ.
    """
    if not exists(place):
        write_bytes(place, (request.model_dump_json(indent=2) + "\n").encode())
        return
    try:
        found = type(request).model_validate_json(read_bytes(place))
    except ValidationError as error:
        raise BadInput(f"{place} holds no {type(request).__name__} of this version; use another folder.") from error
    if different := _differences(found.model_dump(mode="json"), request.model_dump(mode="json")):
        raise BadInput(f"{split(place)[0]} belongs to another request: {', '.join(different)}; use another folder.")


def _differences(found: object, requested: object, field: str = "") -> list[str]:
    """The fields whose values differ, by their dotted names, with short values."""
    if found == requested:
        return []
    if isinstance(found, dict) and isinstance(requested, dict):
        names = sorted(found.keys() | requested.keys())
        each = (_differences(found.get(name), requested.get(name), f"{field}.{name}".lstrip(".")) for name in names)
        return [one for several in each for one in several]
    if isinstance(found, list | dict) or isinstance(requested, list | dict):
        return [f"another {field}"]
    return [f"{field} is {found}, not {requested}"]


def delta_options(uri: str) -> dict[str, str]:
    """Storage options for deltalake at `uri`: empty for a local path."""
    endpoint = s3_endpoint()
    if not is_s3(uri) or not endpoint:
        return {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}


def arrow_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """A pyarrow file system and the path inside it for `uri`."""
    uri = normalize(uri)
    if not is_s3(uri):
        return pafs.LocalFileSystem(), uri
    endpoint = s3_endpoint()
    options: dict[str, str] = {"region": s3_region()}
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"scheme": scheme, "endpoint_override": host}
    return pafs.S3FileSystem(**options), uri.removeprefix("s3://")


def cause(error: Exception) -> str:
    """The innermost cause of an error of the store: S3's own code where it gave one, else the last line."""
    said = str(error).strip() or type(error).__name__
    if code := re.search(r"<Code>(\w+)</Code>", said):
        return code.group(1)
    return said.splitlines()[-1].rpartition("↳")[2].removeprefix("\x1b[0m").strip(" .")


def s3_region() -> str:
    """The region that S3 requests are signed for: AWS_REGION, else AWS_DEFAULT_REGION, else us-east-1."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def s3_endpoint() -> str | None:
    """The URL of the S3 server in the environment; None for AWS's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
