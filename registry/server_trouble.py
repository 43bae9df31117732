"""What went wrong between here and MLflow, in words that say what to do."""

import re
import sqlite3
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException

from ensemble.support import one_line

ANSWER_WITHIN_S = 5
_LONGEST = 300
_OUR_LIBRARIES = frozenset(
    (*("mlflow", "sqlalchemy", "alembic", "requests", "urllib3", "google"), *("botocore", "boto3", "azure"))
)
_AGAIN = "try the same command again"
_BY_STATUS = {
    "401": "the MLflow server does not know you (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or"
    " MLFLOW_TRACKING_TOKEN",
    "403": "the MLflow server does not let you do this (403); ask whoever runs it for the right to read and write",
    "404": "no MLflow server is there (404); correct MLFLOW_TRACKING_URI",
    "429": f"the MLflow server has too much to do (429); wait a few minutes, then {_AGAIN}",
}
NO_MLFLOW = (
    "what answers there is no MLflow server, or a page in front of it; sign in where it asks for that, or correct"
    " MLFLOW_TRACKING_URI"
)
_STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses|Unexpected response .*?(\d{3})")
_REQUEST = re.compile(r"API request to \S+ failed with exception|Max retries exceeded|Connection(Reset|Refused)Error")


def is_trouble(error: Exception) -> bool:
    """Whether a store, a server or the way there raised it, not a fault of this program."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | ImportError | sqlite3.Error) or library in _OUR_LIBRARIES


def is_answer(error: Exception) -> bool:
    """Whether the store itself answered so, and may answer otherwise soon; a request that failed was tried again."""
    text = str(error)
    return not (_REQUEST.search(text) or _STATUS.search(text))


def in_words(error: Exception) -> str:
    """What happened and what to do."""
    text = one_line(error)
    found = _STATUS.search(text)
    status = next(filter(None, found.groups()), "") if found else ""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status.startswith("5"):
        return f"the MLflow server is in trouble ({status}); its own log says why; once that is mended {_AGAIN}"
    if "not in a valid JSON format" in text or type(error).__name__ == "ParseError":
        return NO_MLFLOW
    if "SSLError" in text or "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "the certificate of the MLflow server is not one that is trusted here; name the file of its authority in"
            " MLFLOW_TRACKING_SERVER_CERT_PATH"
        )
    if _REQUEST.search(text):
        if "timed out" in text or "TimeoutError" in text:
            return f"the MLflow server does not answer in time; {_AGAIN}, or set a longer MLFLOW_HTTP_REQUEST_TIMEOUT"
        return f"the MLflow server does not answer ({_reason(text)}); start it, or correct MLFLOW_TRACKING_URI"
    return f"the model registry failed: {text[:_LONGEST]}"


def _reason(text: str) -> str:
    """The innermost of the errors that requests lists one within the other."""
    return re.findall(r"[^:()]+", text.rstrip("')\" "))[-1].strip(" '\",")[:_LONGEST] or "no reason told"


def silence_at(uri: str) -> str | None:
    """Why nothing answers at an address, found out within seconds; None where anything does, whatever it says."""
    health = re.sub(r"//[^/@]*@", "//", uri).rstrip("/") + "/health"
    try:
        urllib.request.urlopen(health, timeout=ANSWER_WITHIN_S).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return None
        return f"the MLflow server does not answer ({one_line(reason, 200)}); start it, or correct MLFLOW_TRACKING_URI"
    return None
