"""Checks of an S3 store: server, credentials, bucket, region, clock, and conditional puts.

The jobs read and write with obstore, which is fast and says little about a failure. boto3 names the cause: it finds
credentials of every kind, gives S3's own error codes, and reports the region of a bucket and the date of the server.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from spinemet import files
from spinemet.doctor.findings import Finding, Level
from spinemet.results.lease import CLOCK_SKEW

if TYPE_CHECKING:
    from botocore.client import BaseClient

TIMEOUT_S = 5
ATTEMPTS = 2
REFUSAL_S = 900
"""S3 refuses requests whose time is further than this from its own."""
READ_BY_JOBS = {
    "env": "environment variables",
    "container-role": "role of the container",
    "iam-role": "role of the machine",
    "assume-role-with-web-identity": "web identity",
}
"""Kinds of credentials, as boto3 names them, that obstore finds too. It reads no file in ~/.aws."""

_VARIABLES = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys)."
_CLOCK = "Set this machine's clock, for example with NTP."
_REMEDIES = {
    "NoSuchBucket": ("there is no such bucket", "Check the name, or create the bucket: the jobs do not."),
    "AccessDenied": ("the store refuses access", "Allow these credentials to list, read and, for results, write here."),
    "InvalidAccessKeyId": ("the store does not know the access key", _VARIABLES),
    "SignatureDoesNotMatch": ("the secret key does not fit the access key", _VARIABLES),
    "ExpiredToken": ("the session token has expired", "Get new temporary keys."),
    "InvalidToken": ("the session token is not valid", "Get new temporary keys, or unset AWS_SESSION_TOKEN."),
    "RequestTimeTooSkewed": ("this machine's clock is too far from the store's", _CLOCK),
}


class StoreProblem(Exception):
    """A request failed; `remedy` says what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found, self.remedy = found, remedy


@dataclass
class S3:
    """The S3 store that the environment names."""

    clock_off_s: float | None = None
    """Seconds that this machine is ahead of the store; None until an answer came with a date."""
    _no_answer: StoreProblem | None = None
    """Set once no server answered, so that the next checks do not wait for it again."""

    def check_settings(self) -> Finding:
        """Server, region and the kind of credentials, as the jobs will use them."""
        import boto3

        credentials = boto3.Session().get_credentials()
        facts = f"{_server()}, region {files.s3_region()}, credentials: "
        if credentials is None:
            return Finding("S3", Level.PROBLEM, f"{facts}none", _VARIABLES)
        if credentials.method not in READ_BY_JOBS:
            return Finding("S3", Level.PROBLEM, f"{facts}{credentials.method}, which jobs do not read", _VARIABLES)
        return Finding("S3", Level.OK, facts + READ_BY_JOBS[credentials.method])

    def check_bucket(self, uri: str) -> None:
        """Raise StoreProblem if what lies below `uri` cannot be listed with these settings."""
        bucket, prefix = _parts(uri)
        client, region = self._client(), None
        with suppress(StoreProblem):  # the answer to a HEAD has no error code; that to the listing below has one
            region = self._answer(lambda: client.head_bucket(Bucket=bucket)).get("BucketRegion")
        # Most servers of one's own take any region; AWS does not.
        if region and region != files.s3_region() and not files.s3_endpoint():
            raise _wrong_region(region)
        self._answer(lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/".lstrip("/"), MaxKeys=1))

    def check_conditional_puts(self, uri: str) -> str:
        """Put, replace and delete a small object below `uri`. Gives its key if it could not be deleted, else "".

        Raises StoreProblem if the store refuses to write, or writes although If-None-Match or If-Match does not hold:
        two runs would then overwrite each other's lease and tables.
        """
        bucket, prefix = _parts(uri)
        key = f"{prefix}/doctor-{uuid.uuid4().hex}".lstrip("/")
        client, versions = self._client(), []

        def put(**condition: str) -> dict[str, Any]:
            answer = client.put_object(Bucket=bucket, Key=key, Body=b"spinemet doctor", **condition)
            versions.append(answer.get("VersionId"))
            return dict(answer)

        try:
            tag = self._answer(lambda: put(IfNoneMatch="*")).get("ETag", "")
            if not _is_refused(lambda: put(IfNoneMatch="*")):
                raise _unconditional("If-None-Match")
            if not _is_refused(lambda: put(IfMatch='"0"')):
                raise _unconditional("If-Match")
            self._answer(lambda: put(IfMatch=tag))
        finally:
            is_left = not _removed(client, bucket, key, versions)
        return key if is_left else ""

    def check_clock(self) -> Finding:
        """How far this machine's clock is from the store's."""
        if self.clock_off_s is None:
            return Finding("clock", Level.SKIPPED, "no date from a store to compare with")
        off, lease = round(abs(self.clock_off_s)), CLOCK_SKEW.total_seconds()
        found = f"{off} s {'ahead of' if self.clock_off_s > 0 else 'behind'} the store"
        if off > REFUSAL_S:
            return Finding("clock", Level.PROBLEM, f"{found}; S3 refuses requests from {REFUSAL_S} s on", _CLOCK)
        if off > lease:
            return Finding("clock", Level.WARNING, f"{found}; the lease of a run allows for {lease:.0f} s", _CLOCK)
        return Finding("clock", Level.OK, found if off > 1 else "agrees with the store")

    def _answer(self, request: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The answer to `request`; notes the server's date. Raises StoreProblem."""
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

        if self._no_answer is not None:
            raise self._no_answer
        try:
            answer = request()
        except ClientError as error:
            self._note_date(error.response)
            raise _explained(error.response) from error
        except (ConnectionError, HTTPClientError) as error:
            self._no_answer = StoreProblem(
                f"no S3 server answers at {_server()} ({type(error).__name__})",
                "Check AWS_ENDPOINT_URL, the network and the proxy settings, and that the server runs.",
            )
            raise self._no_answer from error
        except BotoCoreError as error:
            raise StoreProblem(f"the request could not be made ({type(error).__name__})", _VARIABLES) from error
        self._note_date(answer)
        return answer

    def _note_date(self, answer: dict[str, Any]) -> None:
        text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        with suppress(ValueError):
            self.clock_off_s = (datetime.now(UTC) - parsedate_to_datetime(text)).total_seconds()

    def _client(self) -> BaseClient:
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS},
            request_checksum_calculation="when_required",  # stores other than AWS may not know the newer checksums
            s3={"addressing_style": "path" if files.s3_endpoint() else "auto"},
        )
        try:
            return boto3.client("s3", endpoint_url=files.s3_endpoint(), region_name=files.s3_region(), config=config)
        except ValueError as error:
            raise StoreProblem(
                f"{_server()} is not a URL", "Begin AWS_ENDPOINT_URL with http:// or https://."
            ) from error


def _server() -> str:
    return files.s3_endpoint() or "AWS"


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, prefix = files.normalize(uri).removeprefix("s3://").partition("/")
    return bucket, prefix


def _explained(response: dict[str, Any]) -> StoreProblem:
    """What an error answer of S3 means."""
    error, headers = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.get("Region") or headers.get("x-amz-bucket-region")
    if region and region != files.s3_region():
        return _wrong_region(region)
    code = str(error.get("Code") or response.get("ResponseMetadata", {}).get("HTTPStatusCode", "without a code"))
    return StoreProblem(*_REMEDIES.get(code, (f"the store answers {code}", "Look this code up in the store's manual.")))


def _wrong_region(region: str) -> StoreProblem:
    return StoreProblem(f"the bucket lies in region {region}, not {files.s3_region()}", f"Set AWS_REGION={region}.")


def _unconditional(header: str) -> StoreProblem:
    return StoreProblem(
        f"the store writes although {header} does not hold, so two runs could overwrite each other",
        "Use a store with conditional puts, such as S3 or MinIO.",
    )


def _is_refused(request: Callable[[], object]) -> bool:
    """True if the store does not carry out the request, because its condition does not hold."""
    from botocore.exceptions import ClientError

    try:
        request()
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"] in {409, 412}
    return False


def _removed(client: BaseClient, bucket: str, key: str, versions: list[str | None]) -> bool:
    """Delete the object with all the versions that were made; False if something is left."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        for version in versions:
            client.delete_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
    except (BotoCoreError, ClientError):
        return False
    return True
