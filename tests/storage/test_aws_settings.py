"""S3 is asked with what the AWS tools would ask with, and without credentials only where there are none."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from ensemble.storage.aws_settings import AwsSettings, aws_settings
from ensemble.support.errors import VolumeError
from tests.support.bucket import forget_aws

CREDENTIALS = """\
[default]
aws_access_key_id = AKIDEFAULT
aws_secret_access_key = s3cr3t%sign
[lab]
aws_access_key_id = AKILAB
aws_secret_access_key = other
aws_session_token = token
"""
CONFIG = """\
[default]
region = eu-west-1
[profile lab]
region = eu-central-1
endpoint_url = https://s3.lab.example
[profile sso]
sso_session = ours
region = eu-west-2
"""


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    forget_aws(monkeypatch, tmp_path)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "config").write_text(CONFIG)


def test_without_any_nothing_is_signed():
    assert aws_settings() == AwsSettings(is_anonymous=True)


@pytest.mark.usefixtures("files")
def test_the_files_are_read_as_the_tools_write_them(monkeypatch):
    assert aws_settings() == AwsSettings("AKIDEFAULT", "s3cr3t%sign", region="eu-west-1")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert aws_settings() == AwsSettings("AKILAB", "other", "token", "eu-central-1", "https://s3.lab.example")


@pytest.mark.usefixtures("files")
def test_the_environment_goes_before_the_files(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIENV")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert aws_settings() == AwsSettings(region="us-west-2", endpoint="http://localhost:9000")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert aws_settings().is_anonymous


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("nobody", "no AWS profile nobody; correct AWS_PROFILE"),
        ("sso", "aws configure export-credentials --profile sso"),
    ],
)
def test_a_profile_without_keys_is_told_with_the_way_out(monkeypatch, profile, message):
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(VolumeError, match=message):
        aws_settings()


def test_of_a_damaged_file_nothing_is_shown(tmp_path):
    (tmp_path / "credentials").write_text("aws_secret_access_key = s3cr3t\n[default\n")
    with pytest.raises(VolumeError, match="credentials: not as the AWS tools write it; run aws configure") as told:
        aws_settings()
    assert "s3cr3t" not in str(told.value)


def test_no_secret_is_shown():
    assert "s3cr3t" not in repr(AwsSettings("AKI", "s3cr3t", "s3cr3t"))


class _Metadata(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        self._say(b"token")

    def do_GET(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token"] == "token"
        self._say(self.server.roles)

    def _say(self, text: bytes) -> None:
        self.send_response(200 if text else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("roles", "is_anonymous"), [(b"reader\n", False), (b"", True)])
def test_a_machine_that_lends_a_role_is_asked_for_it(monkeypatch, roles, is_anonymous):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        server.roles = roles
        Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        assert aws_settings().is_anonymous == is_anonymous
        server.shutdown()
