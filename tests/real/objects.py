"""Puts and gets objects with boto3 as applications do: `ENDPOINT CA FOLDER`, the credentials in the environment.

Prints one JSON object. The store verifies each signature, and each checksum is verified here.
"""

import json
import logging
import os
import sys
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.config import Config

endpoint, authority, folder = sys.argv[1:]
said: dict[str, Any] = {"continued": 0, "waited": 0, "trailers": 0, "signatures": set()}


class Count(logging.Handler):
    """What botocore says of Expect, which it tells nowhere else."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        said["continued"] += text.startswith("100 Continue response seen")
        said["waited"] += text.startswith("No response seen from server")


logger = logging.getLogger("botocore")
logger.setLevel(logging.DEBUG)
logger.addHandler(Count())

s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name="us-east-1",
    verify=authority or None,
    # Without retries: what fails once is told.
    config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, signature_version="s3v4"),
)


def sent(request: AWSPreparedRequest, **_: object) -> None:
    said["trailers"] += "X-Amz-Trailer" in request.headers
    said["signatures"].add(str(request.headers.get("X-Amz-Content-SHA256", b""), "ascii")[:20])


s3.meta.events.register("before-send.s3.PutObject", sent)

s3.create_bucket(Bucket="things")
for name, size in [("none", 0), ("small", 10), ("middle", 65_537), ("large", 3_000_000)]:
    path = f"{folder}/{name}"
    content = os.urandom(size)
    with open(path, "wb") as new:
        new.write(content)
    key = f"a folder/{name} +&='.bin"
    with open(path, "rb") as file:
        s3.put_object(Bucket="things", Key=key, Body=file, Metadata={"name": name}, ContentType="text/plain")
    got = s3.get_object(Bucket="things", Key=key, ChecksumMode="ENABLED")
    assert got["Body"].read() == content, name
    assert got["Metadata"] == {"name": name} and got["ContentType"] == "text/plain", got
    assert got["ContentLength"] == size and got.get("ContentEncoding") in (None, ""), got
    if size > 100:
        part = s3.get_object(Bucket="things", Key=key, Range="bytes=5-14")
        assert part["Body"].read() == content[5:15] and part["ContentRange"] == f"bytes 5-14/{size}", part
        head = s3.head_object(Bucket="things", Key=key)
        assert head["ContentLength"] == size and head["ETag"] == got["ETag"], head

# Several parts at once.
content = os.urandom(12 * 1024 * 1024)
with open(f"{folder}/parts", "wb") as parts:
    parts.write(content)
s3.upload_file(f"{folder}/parts", "things", "parts", Config=TransferConfig(multipart_chunksize=5 * 1024 * 1024))
s3.download_file("things", "parts", f"{folder}/back")
with open(f"{folder}/back", "rb") as back:
    assert back.read() == content

listed = s3.list_objects_v2(Bucket="things", Prefix="a folder/")
assert listed["KeyCount"] == 4, listed


def campaign(request: AWSRequest, **_: object) -> None:
    request.params["utm_source"] = "mail"


# A link whose campaign is signed with it.
s3.meta.events.register("before-sign.s3.GetObject", campaign)
said["link"] = s3.generate_presigned_url("get_object", Params={"Bucket": "things", "Key": "parts"})
s3.meta.events.unregister("before-sign.s3.GetObject", campaign)
s3.delete_object(Bucket="things", Key="a folder/none +&='.bin")
assert s3.list_objects_v2(Bucket="things")["KeyCount"] == 4
said["signatures"] = sorted(said["signatures"])
print(json.dumps(said))
