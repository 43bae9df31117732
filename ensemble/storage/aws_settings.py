"""Credentials, region and endpoint of S3 as the AWS tools take them: the environment, then the files in ~/.aws.

The library that reads S3 takes the environment itself, and asks containers and machines of AWS for their role; what it
leaves out are the files, and that a bucket which is open to all is read without any credentials.
"""

import os
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from ensemble.support import VolumeError

_OF_A_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_SIGN_IN = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")
"""Keys of profiles whose credentials must be fetched."""

_METADATA_SERVICE = "http://169.254.169.254"
_VENDOR = Path("/sys/devices/virtual/dmi/id/sys_vendor")
_ASKED_S = 1.0


@dataclass(frozen=True)
class AwsSettings:
    """What S3 is asked with; "" where nothing is said. ``is_anonymous``: nothing is signed.

    ``key_id``, ``secret`` and ``token`` are those of a profile: such of the environment the library takes itself.
    """

    key_id: str = ""
    secret: str = ""
    token: str = ""
    region: str = ""
    endpoint: str = ""
    is_anonymous: bool = False

    def __repr__(self) -> str:
        return f"AwsSettings(region={self.region!r}, is_anonymous={self.is_anonymous})"


def aws_settings() -> AwsSettings:
    """What the environment and the chosen profile say now. Raises VolumeError for a profile that is not there.

    Anonymous where there are no credentials at all, or with AWS_SKIP_SIGNATURE=true.
    """
    profile = _profile()
    region = _said("AWS_REGION", "AWS_DEFAULT_REGION") or profile.get("region", "")
    endpoint = _said("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") or profile.get("endpoint_url", "")
    if _said("AWS_SKIP_SIGNATURE").lower() in ("1", "true"):
        return AwsSettings(region=region, endpoint=endpoint, is_anonymous=True)
    if _said("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        return AwsSettings(region=region, endpoint=endpoint)
    key_id, secret = (profile.get(f"aws_{name}", "") for name in ("access_key_id", "secret_access_key"))
    if key_id and secret:
        return AwsSettings(key_id, secret, profile.get("aws_session_token", ""), region, endpoint)
    if any(key in profile for key in _SIGN_IN):
        raise VolumeError(
            f"the AWS profile {_profile_name()} holds no key, but says how to sign in; do so, then run: "
            f'eval "$(aws configure export-credentials --profile {_profile_name()} --format env)"'
        )
    return AwsSettings(
        region=region, endpoint=endpoint, is_anonymous=not (_said(*_OF_A_CONTAINER) or _machine_has_role())
    )


def _said(*names: str) -> str:
    """Of the environment, the first that says anything."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def _profile_name() -> str:
    return _said("AWS_PROFILE") or "default"


def _profile() -> Mapping[str, str]:
    """What ~/.aws/config and ~/.aws/credentials say of the profile that is in use."""
    name = _profile_name()
    config = _sections(_said("AWS_CONFIG_FILE") or "~/.aws/config")
    credentials = _sections(_said("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
    found = [config.get(f"profile {name}", config.get(name)), credentials.get(name)]
    if _said("AWS_PROFILE") and found == [None, None]:
        raise VolumeError(f"there is no AWS profile {name}; correct AWS_PROFILE, or run aws configure --profile {name}")
    merged: dict[str, str] = {}
    for section in found:
        merged |= section or {}
    return merged


def _sections(path: str) -> dict[str, dict[str, str]]:
    """The sections of a file such as ~/.aws/config; none where there is no file. Raises VolumeError."""
    parser = ConfigParser(interpolation=None, strict=False, default_section="\0")
    try:
        parser.read(Path(path).expanduser(), encoding="utf-8")
    except (IniError, UnicodeDecodeError):  # which quote what they stumbled over, and that may be a key
        raise VolumeError(f"{path}: not as the AWS tools write it; run aws configure") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _machine_has_role() -> bool:
    """Whether this is a machine of AWS that lends a role; only such a machine is asked."""
    service = _said("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT")
    if _said("AWS_EC2_METADATA_DISABLED").lower() == "true" or not (service or _is_of_aws()):
        return False
    root = (service or _METADATA_SERVICE).rstrip("/") + "/latest"
    try:
        asked = Request(f"{root}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        with urlopen(asked, timeout=_ASKED_S) as answer:
            token = answer.read().decode()
        roles = Request(f"{root}/meta-data/iam/security-credentials/", headers={"X-aws-ec2-metadata-token": token})
        with urlopen(roles, timeout=_ASKED_S) as answer:
            return bool(answer.read().strip())
    except (URLError, OSError, ValueError):
        return False


def _is_of_aws() -> bool:
    try:
        return "Amazon EC2" in _VENDOR.read_text()
    except OSError:
        return False
