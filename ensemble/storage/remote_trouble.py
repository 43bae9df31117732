"""What a bucket or host answered in place of what was asked for, in a line that says what to do."""

import re

from ensemble.support import one_line

_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3}[^:<\n]*)")
_SPOKEN = re.compile(r"\n|Debug source:")

_WITHOUT = "AWS_SKIP_SIGNATURE=true reads a bucket that is open to all without credentials"
_AGAIN = "run the same command again to go on from here"

_BY_CODE = {
    "NoSuchBucket": "there is no such bucket; correct the URL, or AWS_ENDPOINT_URL",
    "ExpiredToken": f"the credentials have expired; sign in again, then {_AGAIN}",
    "TokenRefreshRequired": f"the credentials have expired; sign in again, then {_AGAIN}",
    "RequestTimeTooSkewed": "this machine's clock is wrong, so its signatures are refused; set the clock",
    "InvalidAccessKeyId": f"the access key is not known there; correct the credentials, or AWS_PROFILE; {_WITHOUT}",
    "InvalidToken": f"the session token is not one of theirs; sign in again; {_WITHOUT}",
    "SignatureDoesNotMatch": f"the secret key does not fit the access key; correct the credentials; {_WITHOUT}",
    "PermanentRedirect": "the bucket lies in another region; name it in AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; name it in AWS_REGION",
    "IllegalLocationConstraintException": "the bucket lies in another region; name it in AWS_REGION",
    "AllAccessDisabled": "the bucket was closed by who owns it; ask there",
    "InvalidObjectState": "the object is in an archive; restore it there first",
}

_BY_WORDS = (
    ("Received redirect without LOCATION", _BY_CODE["PermanentRedirect"]),
    ("kind: Connect", f"nothing answers there; look at network and address (AWS_ENDPOINT_URL), then {_AGAIN}"),
    ("kind: Timeout", f"no answer in time; {_AGAIN}"),
    ("kind: Interrupted", f"the connection broke off; {_AGAIN}"),
    ("kind: Decode", f"the answer was cut short, again and again; {_AGAIN}"),
    ("HTTP error: error sending request", f"the connection broke off, again and again; {_AGAIN}"),
    ("NoContentRange", f"the answer was cut short, and the rest cannot be asked for; {_AGAIN}"),
    ("URL scheme is not allowed", "it is asked for over http, which is not encrypted; name it so in AWS_ENDPOINT_URL"),
)

_BY_STATUS = (
    ("401", f"credentials are asked for; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; {_WITHOUT}"),
    ("403", f"not to be read with these credentials: s3:GetObject and s3:ListBucket are needed; {_WITHOUT}"),
    ("429", f"too busy to answer (429), again and again; {_AGAIN} later"),
    ("5", f"in trouble ({{status}}), again and again; {_AGAIN} later"),
)


def code_of(error: BaseException) -> str:
    """The code by which S3 names a fault; "" where there is none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def is_refused(error: BaseException) -> bool:
    """Whether what was asked is forbidden or not offered, rather than out of order."""
    found = _STATUS.search(str(error))
    return found is not None and found[1][:3] in ("401", "403", "405", "501") and code_of(error) not in _BY_CODE


def is_whole(error: BaseException) -> bool:
    """Whether a part of a file was asked for, and all of it would have come."""
    return "non-partial response" in str(error)


def in_words(url: str, error: BaseException) -> str:
    """A fault that the library raised, of what is at ``url``: what it means and what to do, without its own words."""
    text = str(error)
    code, status = code_of(error), _STATUS.search(text)
    if code in _BY_CODE:
        return f"{url}: {_BY_CODE[code]}"
    for start, meaning in _BY_STATUS if status else ():
        if status is not None and status[1].startswith(start):
            return f"{url}: {meaning.format(status=one_line(status[1]))}"
    for words, meaning in _BY_WORDS:
        if words in text:
            return f"{url}: {meaning}"
    return f"{url}: {one_line(_SPOKEN.split(text)[0], 300)}"
