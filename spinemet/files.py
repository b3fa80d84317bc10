"""Local paths and `s3://` URIs, opened for the libraries that read and write them.

S3 settings come from the same environment variables as for every AWS tool: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL (for MinIO, Ceph, moto; only such an endpoint may use plain http) and
AWS_CA_BUNDLE (a file with the certificate of a private CA).
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import shutil
from collections.abc import Mapping
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow.fs as pafs
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, S3Store
from pydantic import BaseModel, ValidationError

from spinemet.errors import BadInput, plain_cause

if TYPE_CHECKING:
    import pandas as pd
    from obstore.store import ClientConfig, RetryConfig, S3Config

RETRIES = 6
"""With waits of 0.1, 0.2 … 6.4 s and jitter, reading survives an outage of about ten seconds. A longer outage costs
each study these ten seconds, instead of three minutes with obstore's default."""
RETRY_TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=10)
READ_TIMEOUT = timedelta(seconds=30)
"""Longest wait for the next byte."""
REQUEST_TIMEOUT = timedelta(hours=1)
"""For a whole request: a zip of 4 GB takes minutes, and obstore's default of 30 s would cut it off."""

_BACKTRACE = re.compile(r"\n +0: .*", re.DOTALL)
"""The frames of native code at the end of some errors of deltalake."""


def is_s3(uri: str) -> bool:
    """True for an `s3://` URI, False for a local path."""
    return uri.startswith("s3://")


def normalize(uri: str | Path) -> str:
    """`uri` without a trailing slash; a local path becomes absolute, because other processes have other folders."""
    text = str(uri)
    if is_s3(text):
        return text.rstrip("/")
    if "://" in text and not text.startswith("file://"):
        raise BadInput(f"expected a local path or an s3:// URI, found {text}.")
    return str(Path(text.removeprefix("file://")).expanduser().absolute())


def resolved(uri: str | Path) -> str:
    """The place itself: `normalize` without `.`, `..`, doubled slashes and links on the way."""
    text = normalize(uri)
    if is_s3(text):
        return "s3://" + posixpath.normpath(text.removeprefix("s3://"))
    return str(Path(text).resolve())


def join(uri: str, *names: str) -> str:
    """`uri` and `names`, joined by single slashes."""
    return "/".join([normalize(uri), *(name.strip("/") for name in names)])


def split(uri: str) -> tuple[str, str]:
    """(parent, name) of `uri`, without the slash between them."""
    parent, _, name = normalize(uri).rpartition("/")
    return parent or "/", name


def open_store(uri: str, *, create: bool = False) -> ObjectStore:
    """An obstore store rooted at `uri`; with `create`, a missing local folder is made.

    Raises BadInput if a local folder is missing or cannot be made, or if the S3 settings cannot be used.
    """
    uri = normalize(uri)
    if not is_s3(uri):
        try:
            return LocalStore(uri, mkdir=create)
        except (BaseError, OSError) as error:
            check_folder(uri)
            raise BadInput(f"cannot open the folder {uri}.") from error
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    _trust_bundle()
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
        raise BadInput(f"cannot open {uri} with the AWS settings of the environment ({plain_cause(error)}).") from error


def check_folder(uri: str) -> None:
    """Raise BadInput if a file lies where `uri` needs a local folder."""
    if not is_s3(uri):
        place = Path(normalize(uri))
        if found := [path for path in (place, *place.parents) if path.is_file()]:
            raise BadInput(f"expected a folder at {place}, but {found[0]} is a file.")


def read_bytes(uri: str) -> bytes:
    """The content of the file or object at `uri`. Raises BadInput if it is missing or cannot be read."""
    parent, name = split(uri)
    try:
        return bytes(obstore.get(open_store(parent), name).bytes())
    except (NotFoundError, FileNotFoundError) as error:
        raise BadInput(f"expected a file at {uri}, found none.") from error
    except (BaseError, OSError) as error:
        raise BadInput(f"cannot read {uri} ({plain_cause(error)}).") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write `content` to `uri` in one step: a reader sees either the old or the new content, never a part."""
    parent, name = split(uri)
    try:
        obstore.put(open_store(parent, create=True), name, content)
    except (BaseError, OSError) as error:
        raise BadInput(f"cannot write {uri} ({plain_cause(error)}).") from error


def delete(uri: str) -> None:
    """Delete the file or object at `uri` if there is one."""
    parent, name = split(uri)
    try:
        obstore.delete(open_store(parent), name)
    except (NotFoundError, FileNotFoundError):
        return
    except (BaseError, OSError) as error:
        raise BadInput(f"cannot delete {uri} ({plain_cause(error)}).") from error


def write_parquet(uri: str, table: pd.DataFrame) -> None:
    """Write `table` without its index to `uri`, in one step."""
    buffer = BytesIO()
    table.to_parquet(buffer, index=False)
    write_bytes(uri, buffer.getvalue())


def exists(uri: str) -> bool:
    """True if there is a file or object at `uri`."""
    parent, name = split(uri)
    if not is_s3(uri):
        return Path(normalize(uri)).exists()
    try:
        obstore.head(open_store(parent), name)
    except (NotFoundError, FileNotFoundError):
        return False
    except BaseError as error:
        raise BadInput(f"cannot reach the object store of {uri} ({plain_cause(error)}).") from error
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


_LOG_BYTES = 64 << 10
"""Room that a commit takes beside its rows: Parquet's headers and the log."""


def check_room(uri: str, size: int) -> None:
    """Raise OSError (ENOSPC) if a local disk has less room at `uri` than rows of `size` bytes and their commit need.

    Delta's writer would find out too, but prints a panic of its own before the error.
    """
    if not is_s3(uri) and shutil.disk_usage(uri).free < size + _LOG_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def delta_options(uri: str) -> dict[str, str]:
    """Storage options for deltalake at `uri`: empty for a local path."""
    _trust_bundle()
    endpoint = s3_endpoint()
    if not is_s3(uri) or not endpoint:
        return {}
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower()}


def arrow_filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """A pyarrow file system, and the path of `uri` in it."""
    uri = normalize(uri)
    if not is_s3(uri):
        return pafs.LocalFileSystem(), uri
    endpoint = s3_endpoint()
    options: dict[str, str] = {"region": s3_region()}
    if endpoint:
        scheme, _, host = endpoint.partition("://")
        options |= {"scheme": scheme, "endpoint_override": host}
    if bundle := ca_bundle():
        options["tls_ca_file_path"] = bundle
    return pafs.S3FileSystem(
        **options, retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=RETRIES)
    ), uri.removeprefix("s3://")


def cause(error: Exception) -> str:
    """The innermost cause of a store's error: the code that S3 gave, else the last line of the message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = _BACKTRACE.sub("", str(error)).strip() or plain_cause(error)
    if code := re.search(r"<Code>(\w+)</Code>", said):
        return code.group(1)
    return said.splitlines()[-1].rpartition("↳")[2].removeprefix("\x1b[0m").strip(" .")


def boto3_client(connect_s: float, read_s: float, retries: Mapping[str, object]) -> Any:
    """A boto3 client of the S3 store in the environment. Raises ValueError if its endpoint is no URL."""
    import boto3  # half a second of imports that an ordinary archive does without
    from botocore.config import Config

    endpoint = s3_endpoint()
    config = Config(
        connect_timeout=connect_s,
        read_timeout=read_s,
        retries=retries,
        request_checksum_calculation="when_required",  # stores other than AWS may not know the newer checksums
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return boto3.client("s3", endpoint_url=endpoint, region_name=s3_region(), config=config)


def s3_region() -> str:
    """The region that S3 requests are signed for: AWS_REGION, else AWS_DEFAULT_REGION, else us-east-1."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def s3_endpoint() -> str | None:
    """The URL of the S3 server in the environment; None for AWS's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def ca_bundle() -> str | None:
    """The file with the certificates that an S3 server's own must come from (AWS_CA_BUNDLE); None for the system's.

    Raises BadInput if there is no such file.
    """
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and not Path(bundle).is_file():
        raise BadInput(f"expected a file with certificates at {bundle} (AWS_CA_BUNDLE), found none.")
    return bundle or None


def _trust_bundle() -> None:
    """Let obstore and deltalake, which know only this variable, trust the same certificates as every AWS tool."""
    if bundle := ca_bundle():
        os.environ.setdefault("SSL_CERT_FILE", bundle)
