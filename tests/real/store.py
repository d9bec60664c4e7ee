"""Serves S3 (moto) that verifies signatures, and prints its address and the credentials of its one user."""

import json
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

# What makes the user below is asked for without one.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "3"

import boto3
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WSGIRequestHandler.protocol_version = "HTTP/1.1"
credentials = Credentials("", "")
moto = DomainDispatcherApplication(create_backend_app)


def link_holds(environ: "WSGIEnvironment", query: list[tuple[str, str]], signature: str) -> bool:
    """Signs a link anew, as it reached this server."""
    signed = [(name, value) for name, value in query if name != "X-Amz-Signature"]
    url = f"http://{environ['HTTP_HOST']}{unquote(environ['REQUEST_URI'].split('?')[0])}"
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers={"host": environ["HTTP_HOST"]}, params=dict(signed))
    request.context["timestamp"] = dict(query)["X-Amz-Date"]
    auth = S3SigV4QueryAuth(credentials, "s3", "us-east-1")
    return bool(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request) == signature)


def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """moto knows no signed links where it verifies signatures: these are answered here."""
    query = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)
    signature = dict(query).get("X-Amz-Signature")
    if signature is None:
        answered: Iterable[bytes] = moto(environ, start_response)
        return answered
    holds = link_holds(environ, query, signature)
    content = b"the signature holds" if holds else b"SignatureDoesNotMatch"
    fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))]
    start_response("200 OK" if holds else "403 Forbidden", fields)
    return [content]


server = make_server("127.0.0.1", 0, app, threaded=True)
address = f"127.0.0.1:{server.port}"
threading.Thread(target=server.serve_forever).start()
iam = boto3.client(
    "iam", endpoint_url=f"http://{address}", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
)
iam.create_user(UserName="test")
policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="test", PolicyName="all", PolicyDocument=json.dumps(policy))
key = iam.create_access_key(UserName="test")["AccessKey"]
credentials.access_key, credentials.secret_key = key["AccessKeyId"], key["SecretAccessKey"]
print(address, key["AccessKeyId"], key["SecretAccessKey"], flush=True)
