"""Checks of an S3 store: server, credentials, bucket, region, clock, and conditional puts.

The jobs read and write with obstore, which is fast and says little about a failure. boto3 names the cause: it finds
credentials of every kind, gives S3's own error codes, and reports the region of a bucket and the date of the server.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spinemet import files
from spinemet.doctor.findings import Level, Trouble, check
from spinemet.errors import BadInput, plain_cause

if TYPE_CHECKING:
    from botocore.client import BaseClient

REFUSAL_S = 900
"""S3 refuses requests whose time is further than this from its own."""
CLOCK_OFF_S = 30
"""From here on a warning: the dates of commits, and the age of objects that are still being written, go by clocks."""
READ_BY_JOBS = ("env", "container-role", "iam-role", "assume-role-with-web-identity")
"""Kinds of credentials, as boto3 names them, that obstore finds too. It reads no file in ~/.aws."""

_VARIABLES = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys)."
_CONDITIONAL = "Use a store with conditional puts, such as S3 or MinIO."
_CLOCK = "Set this machine's clock, for example with NTP."
_REMEDIES = {
    "NoSuchBucket": ("there is no such bucket", "Check the name, or create the bucket: the jobs do not."),
    "AccessDenied": ("the store refuses access", "Allow these credentials to list, read, write and delete there."),
    "InvalidAccessKeyId": ("the store does not know the access key", _VARIABLES),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", _VARIABLES),
    "ExpiredToken": ("the session token has expired", "Get new temporary keys."),
    "RequestTimeTooSkewed": ("this machine's clock is too far from the store's", _CLOCK),
    "501": ("the store does not know If-None-Match or If-Match", _CONDITIONAL),
}


class ConditionFailed(Trouble):
    """A store refuses a put because its condition does not hold."""


class S3:
    """The S3 store that the environment names."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None
        self._no_answer: Trouble | None = None

    @check("S3")
    def check_settings(self) -> str:
        """Server, region and the kind of credentials, as the jobs will use them."""
        import boto3

        credentials = boto3.Session().get_credentials()
        kind = credentials.method if credentials else "none"
        found = f"{files.s3_endpoint() or 'AWS'}, region {files.s3_region()}, credentials: {kind}"
        if kind not in READ_BY_JOBS:
            raise Trouble(f"{found}, which jobs do not read" if credentials else found, _VARIABLES)
        return found

    def check_bucket(self, uri: str) -> None:
        """Raise Trouble if what lies below `uri` cannot be listed with these settings; a local path is left alone."""
        if not files.is_s3(uri):
            return
        bucket, prefix = _parts(uri)
        self._call("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)

    def check_conditional_puts(self, uri: str) -> None:
        """Put, replace and delete a small object below `uri`.

        Raises Trouble if the store refuses, or writes although If-None-Match or If-Match does not hold: two runs would
        then overwrite each other's lease and tables.
        """
        bucket, prefix = _parts(uri)
        place = {"Bucket": bucket, "Key": f"{prefix}doctor-{uuid.uuid4().hex}"}
        versions = []

        def put(**condition: str) -> str:
            answer = self._call("put_object", **place, Body=b"spinemet doctor", **condition)
            versions.append({"VersionId": answer["VersionId"]} if "VersionId" in answer else {})
            return str(answer.get("ETag", ""))

        try:
            tag = put(IfNoneMatch="*")
            for header, condition in ("If-None-Match", {"IfNoneMatch": "*"}), ("If-Match", {"IfMatch": '"0"'}):
                with suppress(ConditionFailed):
                    put(**condition)
                    found = f"the store writes although {header} does not hold, so two runs could overwrite each other"
                    raise Trouble(found, _CONDITIONAL)
            put(IfMatch=tag)
        finally:
            for version in versions:
                self._call("delete_object", **place, **version)

    @check("clock")
    def check_clock(self) -> str:
        """How far this machine's clock is from the store's."""
        if self._ahead_s is None:
            raise Trouble("no date from a store to compare with", level=Level.SKIPPED)
        off = round(abs(self._ahead_s))
        found = f"{off} s {'ahead of' if self._ahead_s > 0 else 'behind'} the store"
        if off > REFUSAL_S:
            raise Trouble(f"{found}; S3 refuses requests from {REFUSAL_S} s on", _CLOCK)
        if off > CLOCK_OFF_S:
            raise Trouble(f"{found}; --as-of and --quiet-minutes go by clocks", _CLOCK, Level.WARNING)
        return found if off > 1 else "agrees with the store"

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer of the store. Raises Trouble, at once if no server answered before."""
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, SSLError

        if self._no_answer is not None:
            raise self._no_answer
        try:
            answer = getattr(self._client, operation)(**arguments)
        except ClientError as error:
            raise _explained(error.response) from error
        except SSLError as error:
            self._no_answer = Trouble(
                f"the certificate of the S3 server at {files.s3_endpoint() or 'AWS'} is not trusted",
                "Set AWS_CA_BUNDLE to the file with the certificate of the CA that it comes from.",
            )
            raise self._no_answer from error
        except (ConnectionError, HTTPClientError) as error:
            self._no_answer = Trouble(
                f"no S3 server answers at {files.s3_endpoint() or 'AWS'} ({plain_cause(error)})",
                "Check AWS_ENDPOINT_URL, the network and the proxy settings, and that the server runs.",
            )
            raise self._no_answer from error
        except BotoCoreError as error:
            raise Trouble(f"the request could not be made ({plain_cause(error)})", _VARIABLES) from error
        # boto3 follows AWS to the right region, obstore does not. Most servers of one's own take any region.
        if not files.s3_endpoint() and (trouble := _other_region(answer)):
            raise trouble
        return dict(answer)

    @cached_property
    def _client(self) -> BaseClient:
        files.ca_bundle()  # BadInput for a file that is not there
        try:
            client: BaseClient = files.boto3_client(5, 5, {"total_max_attempts": 2})
        except ValueError as error:
            found = f"{files.s3_endpoint()} is not a URL"
            raise Trouble(found, "Begin AWS_ENDPOINT_URL with http:// or https://.") from error
        client.meta.events.register("after-call", self._note_date)
        return client

    def _note_date(self, parsed: dict[str, Any], **_: Any) -> None:
        with suppress(ValueError):
            date = parsedate_to_datetime(_headers(parsed).get("date", ""))
            self._ahead_s = (datetime.now(UTC) - date).total_seconds()


def require_stores(*places: str | None) -> None:
    """Raise BadInput, with the remedy, if an s3:// place cannot be listed: a job asks before it computes anything.

    The message names the endpoint, certificate, credentials, region or bucket. Local places are skipped.
    """
    s3 = S3()
    for place in places:
        if place is not None:
            try:
                s3.check_bucket(place)
            except Trouble as trouble:
                raise BadInput(f"{place} cannot be used: {trouble.found}. {trouble.remedy}") from trouble


def _parts(uri: str) -> tuple[str, str]:
    """The bucket, and the prefix with a slash at its end, or empty."""
    bucket, _, prefix = files.normalize(uri).removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/".lstrip("/")


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    return dict(answer["ResponseMetadata"]["HTTPHeaders"])


def _other_region(answer: dict[str, Any]) -> Trouble | None:
    region = answer.get("Error", {}).get("Region") or _headers(answer).get("x-amz-bucket-region")
    if region in {None, files.s3_region()}:
        return None
    return Trouble(f"the bucket lies in region {region}, not {files.s3_region()}", f"Set AWS_REGION={region}.")


def _explained(answer: dict[str, Any]) -> Trouble:
    """What an error answer of S3 means."""
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    code = answer.get("Error", {}).get("Code") or status
    unknown = (f"the store answers {code}", "Look this code up in the store's manual.")
    meaning = _REMEDIES.get(code, _REMEDIES.get(str(status), unknown))
    return _other_region(answer) or (ConditionFailed if status in {409, 412} else Trouble)(*meaning)
